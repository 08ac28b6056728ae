# frozen_string_literal: true

require_relative "../e2e/support/e2e"

# The program where it was not built: without a library, and on ARM.
class ProgramTest < E2E::Case
  ARM64 = File.join(E2E::ROOT, "target/aarch64-unknown-linux-gnu/release/diagctl")

  # So neither libc nor its version matters.
  def test_it_runs_where_there_is_no_library
    skip "chroot needs root" unless Process.uid.zero?
    FileUtils.cp(E2E::BIN, File.join(@root, "diagctl"))
    Dir.mkdir(File.join(@root, "empty"))
    %w[--version help].each do |command|
      result = E2E::Command.run("chroot", @root, "/diagctl", command, env: { "PATH" => "/usr/sbin:/usr/bin" })
      assert result.ok? && result.out.include?("diagctl"), result
    end
  end

  def test_the_arm_program_captures_lists_and_verifies
    skip "there is no #{ARM64}; run packaging/arm64" unless File.exist?(ARM64)
    skip "qemu-user is not installed" unless system("qemu-aarch64", "--version", out: File::NULL)
    assert_equal 183, File.binread(ARM64, 2, 18).unpack1("S<"), "the machine of its ELF header"
    Dir.mkdir(@store, 0o700)
    id = arm64!("run", "--report", "hello", "--", "echo", "hi").out.strip
    assert_equal id, arm64!("list", "-q").out.strip
    assert_equal "hi\n", arm64!("fetch", "#{id}:hello", "-o", "-").out
    assert_match(/intact/, arm64!("verify", "--all").out)
    # It reads the capture of the other architecture, and the other way round.
    assert_equal id, diagctl!("list", "-q").out.strip
  end

  private

  def arm64(*argv) = E2E::Command.run("qemu-aarch64", ARM64, *argv, env: env)

  def arm64!(*argv) = arm64(*argv).tap { |result| assert result.ok?, result }
end
