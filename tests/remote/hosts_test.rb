# frozen_string_literal: true

require_relative "support/directory_case"
require_relative "support/reading"

module E2E
  # The machines that --host means.
  class HostsTest < DirectoryCase
    include Reading

    def setup
      super
      @id = capture
      ship!
      @host = remote_keys.grep(/meta.json/).first.split("/")[2]
    end

    def test_a_machine_that_has_nothing_is_told_with_those_that_have
      commands = [%w[list], %w[verify --all], %w[show latest], %w[diagnose], %w[heap trend], %w[fetch latest]]
      commands.each do |command|
        result = read(*command, "--host", "zzz")
        assert_equal 4, result.status, result
        assert_includes result.err, "there is only #{@host}"
      end
      assert_includes read("show", "zzz/#{@id}").err, "of the captures of that day, there is only #{@host}"
    end

    def test_the_name_of_a_node_means_its_machine_and_says_so
      node = "#{@host}~4be11a02"
      [["list", "-q", "--host", node], ["verify", "--all", "--host", node], ["show", @id, "--host", node]].each do |command|
        assert_includes read!(*command).err, "#{node} is one store of #{@host}", command
        refute_includes read!(*command.map { |word| word == node ? @host : word }).err, "one store"
      end
      assert_equal @id, read!("list", "-q", "--host", node).out.chomp
      assert_includes read!("show", "#{node}/latest").err, "#{node} is one store of #{@host}"
      refute_includes read!("show", "#{@host}/latest").err, "one store"
    end

    # The newest capture of the machine may be of its other store.
    def test_a_capture_of_a_named_store_is_deleted_by_its_whole_id_only
      node = "#{@host}~4be11a02"
      @store = File.join(@root, "another-store")
      other = capture
      ship!
      [["#{node}/latest"], ["#{node}/#{@id[..-2]}"], ["--host", node, "latest"], ["--host", node, "#{@host}/latest"]].each do |named|
        result = read("rm", "--force", *named)
        assert_equal 4, result.status, result
        assert_match(/may be a capture of another store of #{@host}, because a capture names its machine only.*hint: name it by its whole ID/m, result.err)
      end
      assert_equal [@id, other].sort, read!("list", "-q").out.split.sort
      assert_match(/\Adeleted #{other} of #{@host}\n\z/, read!("rm", "#{node}/#{other}").out)
      assert_match(/\Adeleted #{@id} of #{@host}\n\z/, read!("rm", "#{@host}/latest").out)
    end
  end
end
