# frozen_string_literal: true

require "fileutils"

# What the benchmarks share.
module Bench
  BINARY = ENV.fetch("DIAGCTL_TEST_BIN", File.expand_path("../../target/release/diagctl", __dir__))

  module_function

  # One sentence for the head of a result.
  def machine
    cpuinfo = File.read("/proc/cpuinfo")
    memory = File.read("/proc/meminfo")[/MemTotal:\s*(\d+)/, 1].to_f / (1 << 20)
    format("%s, %d CPUs, %.0f GiB, Linux %s, Ruby %s.", cpuinfo[/model name\s*: (.*)/, 1] || "unknown CPU", `nproc`.to_i, memory, `uname -r`.strip, RUBY_VERSION)
  end

  def write(path, lines)
    FileUtils.mkdir_p(File.dirname(path))
    File.write(path, "#{lines.join("\n")}\n")
    puts lines
  end
end
