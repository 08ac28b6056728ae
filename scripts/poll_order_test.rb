# frozen_string_literal: true

# ruby scripts/poll_order_test.rb: names in poll.ld that nothing in the source has any more are found.
require "fileutils"
require "minitest/autorun"
require "open3"
require "tmpdir"

class PollOrderTest < Minitest::Test
  def setup
    @dir = Dir.mktmpdir
    write("crates/fs/Cargo.toml", "[package]\nname = \"diagctl-fs\"\n")
    write("crates/fs/src/lib.rs", "mod lock;\n")
    write("crates/fs/src/lock.rs", "pub struct LockFile;\nfn wait() {}\n")
    write("crates/diagctl/Cargo.toml", "[package]\nname = \"diagctl\"\n")
    write("crates/diagctl/src/lib.rs", "")
    write("crates/diagctl/src/cli/mod.rs", "pub fn main() {}\n")
    write("crates/diagctl/src/cli/poll.rs", "")
  end

  def teardown
    FileUtils.rm_rf(@dir)
  end

  def test_names_of_crates_modules_functions_and_types_pass
    poll("10diagctl_fs", "diagctl_fs..", "10diagctl_fs4lock8LockFile", "10diagctl_fs4lock4wait",
         "diagctl3cli4main", "diagctl3cli4poll", "diagctl..cli..", "4core3fmt")
    assert_equal ["", true], check
  end

  def test_a_name_that_is_gone_fails_with_its_line
    ["diagctl3cli4gone", "diagctl4gone", "diagctl..gone..", "12diagctl_gone", "10diagctl_fs4lock4main"].each do |gone|
      poll("diagctl3cli4main", gone)
      assert_equal ["poll-order: scripts/poll.ld:4: #{gone} names nothing in the source\n", false], check
    end
  end

  private

  def write(path, text)
    path = File.join(@dir, path)
    FileUtils.mkdir_p(File.dirname(path))
    File.write(path, text)
  end

  def poll(*patterns)
    write("scripts/poll.ld", "/* diagctl */\n{\n#{patterns.map { |pattern| "    *(.text.*#{pattern}*)\n" }.join}}\n")
  end

  def check
    out, status = Open3.capture2e(RbConfig.ruby, File.join(__dir__, "poll-order"), @dir)
    [out, status.success?]
  end
end
