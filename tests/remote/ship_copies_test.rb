# frozen_string_literal: true

require_relative "support/directory_case"
require_relative "support/reading"
require_relative "support/asking"

module E2E
  # A store that was copied or rolled back overwrites nothing that another one has written.
  class ShipCopiesTest < DirectoryCase
    include Reading
    include Asking

    def test_a_copied_store_hides_no_capture_of_the_original
      first = capture
      ship!
      copy = copy_store
      pinned = capture_in(copy)
      diagctl!("pin", pinned, env: of(copy))
      ship!(env: of(copy))
      last = capture
      ship!
      assert_equal [first, pinned, last].sort, remote_list("-q").out.split.sort
      assert_match(/^pinned\b/, read!("show", pinned).out)
      assert_equal "nothing to ship\n", ship!(env: of(copy)).out, "what was shipped stays shipped"
    end

    def test_a_copied_store_is_a_node_of_its_own_and_obeys_only_its_own_requests
      @script = start_script
      watch
      pending = diagctl!("request", "gc_stat", "--remote", "--name", "nobody", "--reason", "a test", env: elsewhere).out.chomp
      wait_until("it is filed") { diagctl!("request", "--list", "--json").json["requests"].any? }
      copy = copy_store
      log = watch(of(copy))
      names = remote_keys.grep(%r{nodes/}).map { |key| File.basename(key, ".json") }
      assert_equal 2, names.uniq.size
      assert_empty diagctl!("request", "--list", "--json", env: of(copy)).json["requests"], File.read(log)
      assert_match(/#{pending} was taken back: .*another node/, File.read(log))
      assert_equal [pending], diagctl!("request", "--list", "--json").json["requests"].map { |request| request["id"] }
    end

    # Such a store is at its old place, and the remote knows more of it than it does itself.
    def test_a_store_that_was_rolled_back_hides_no_capture
      first = capture
      ship!
      copies = File.join(@store, "remote/manifests")
      FileUtils.cp_r(copies, File.join(@root, "before"))
      second = capture
      ship!
      FileUtils.rm_rf([copies, File.join(@store, "reports", second)])
      FileUtils.cp_r(File.join(@root, "before"), copies)
      third = capture
      ship!
      assert_equal [first, second, third].sort, remote_list("-q").out.split.sort
      fourth = capture
      ship!
      assert_equal [first, second, third, fourth].sort, remote_list("-q").out.split.sort
      assert_equal 2, remote_keys.grep(/manifests/).size
    end

    def test_a_store_that_stays_where_it_is_keeps_its_name
      3.times do
        capture
        ship!
      end
      assert_equal 1, remote_keys.grep(/manifests/).size
    end

    def remote_section = "#{super}\n#{Asking::ALLOW}"

    private

    def of(dir) = shipping_env.merge("DIAGCTL_DIR" => dir)

    def copy_store
      File.join(@root, "copy").tap { |copy| Command.run("cp", "-a", @store, copy, env: {}) }
    end
  end
end
