# frozen_string_literal: true

require_relative "support/directory_case"

module E2E
  # A directory as the remote, to which others may write, and which may go away.
  class HostileShareTest < DirectoryCase
    DAYS = 5 * 86_400

    def setup
      super
      @id = capture
      @day = "#{@id[0, 4]}-#{@id[4, 2]}-#{@id[6, 2]}"
    end

    def test_links_in_it_lead_nobody_out_of_it
      ship!
      victim = File.join(@root, "victim")
      FileUtils.mkdir_p(File.join(victim, "sub"))
      %w[db sub/x].each { |name| File.write(File.join(victim, name), "precious") }
      place = Dir.glob("#{@files}/captures/#{@day}/*/#{@id}").first
      FileUtils.rm_rf(place)
      File.symlink(victim, place)
      refute reading("rm", @id).ok?
      refute reading("fetch", @id, "-o", File.join(@root, "out")).ok?
      FileUtils.rm_rf(File.join(@files, "captures", @day))
      File.symlink(victim, File.join(@files, "captures", @day))
      id = capture
      result = ship
      refute result.ok?
      assert_match(/a symbolic link is not followed.*hint: diagctl writes no such thing/m, result.err)
      refute shipped?(id), "it counts as shipped"
      assert_equal %w[db sub sub/x], Dir.glob("**/*", base: victim).sort
      assert(%w[db sub/x].all? { |name| File.read(File.join(victim, name)) == "precious" })
    end

    def test_gc_deletes_no_pinned_capture_because_its_manifest_cannot_be_used
      diagctl!("pin", @id)
      ship!
      manifest = Dir.glob("#{@files}/manifests/#{@day}/*").first
      content = File.read(manifest)
      unpinned = content.sub('"pinned":true', '"pinned":false')
      refute_equal content, unpinned
      Dir.glob("#{@files}/**/*").each { |path| File.utime(Time.now - DAYS, Time.now - DAYS, path) }
      {
        "a link" => -> { File.rename(manifest, "#{@root}/moved") && File.symlink("#{@root}/moved", manifest) },
        "a pipe" => -> { File.unlink(manifest) && File.mkfifo(manifest) },
        "the day is a link" => lambda do
          FileUtils.rm_rf("#{@root}/day")
          FileUtils.mv(File.dirname(manifest), "#{@root}/day") && File.symlink("#{@root}/day", File.dirname(manifest))
        end,
        "empty" => -> { File.write(manifest, "") },
        "the pinned line is damaged" => -> { File.write(manifest, "#{unpinned}#{content[1..]}") }
      }.each do |what, spoil|
        day = File.dirname(manifest)
        File.symlink?(day) ? File.unlink(day) : FileUtils.rm_rf(day)
        Dir.mkdir(day)
        File.write(manifest, content)
        spoil.call
        result = reading("gc", "--max-age", "1d")
        assert_match(/cannot (be )?read|skipped a damaged line/, result.err, what)
        assert Dir.exist?(Dir.glob("#{@files}/captures/#{@day}/*/#{@id}").first.to_s), what
      end
    end

    def test_what_is_written_below_a_share_that_goes_away_is_not_shipped
      skip "nothing can be mounted here" unless system("mount", "-t", "tmpfs", "tmpfs", @files, err: File::NULL)
      mounted = true
      configure(remote: "url = \"file://#{@files}\"\nmax_bandwidth = \"1MiB\"")
      ids = [@id] + Array.new(2) { capture(2 << 20) }
      shipper = Thread.new { ship }
      wait_until("it writes") { !Dir.glob("#{@files}/captures/*/*/*/.tmp-*").empty? }
      assert system("umount", "-l", @files)
      mounted = false
      shipper.join
      assert_empty Dir.children(@files), "on the disk below the share"
      refute ids.all? { |id| shipped?(id) }
      result = ship
      refute result.ok?
      assert_match(/has none of the captures that were sent to it/, result.err)
      assert_empty Dir.children(@files)
    ensure
      system("umount", "-l", @files) if mounted
    end

    private

    def reading(*command) = diagctl(command.first, "--remote", *command.drop(1), env: shipping_env)
  end
end
