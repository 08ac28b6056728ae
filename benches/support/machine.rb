# frozen_string_literal: true

require "fileutils"
require "rbconfig"
require_relative "figures"

# Code that the benchmarks share.
module Bench
  BINARY = ENV.fetch("DIAGCTL_TEST_BIN", File.expand_path("../../target/release/diagctl", __dir__))

  RESULTS = ENV.fetch("DIAGCTL_BENCH_RESULTS", File.expand_path("../results", __dir__))

  module_function

  # Describes the machine and the versions in one sentence, for the head of a result.
  def machine
    cpuinfo = File.read("/proc/cpuinfo")
    memory = File.read("/proc/meminfo")[/MemTotal:\s*(\d+)/, 1].to_f / (1 << 20)
    format("%s, %d CPUs, %.0f GiB, Linux %s, Ruby %s, %s.", cpuinfo[/model name\s*: (.*)/, 1] || "unknown CPU", `nproc`.to_i, memory, `uname -r`.strip, RUBY_VERSION, program)
  end

  # @return [String] "diagctl 0.1.0, commit 1a2b3c4"
  def program
    git = ->(*argv) { IO.popen(["git", *argv], chdir: __dir__, err: File::NULL, &:read).strip }
    commit = git.("describe", "--always")
    # Results that an earlier benchmark wrote are no change to what is measured.
    commit += "-dirty" unless git.("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!:/benches/results").empty?
    [`#{BINARY} --version`.strip, ("commit #{commit}" unless commit.empty?)].compact.join(", ")
  rescue Errno::ENOENT
    `#{BINARY} --version`.strip
  end

  # Uses this much memory and frees it. If the hypervisor has taken free memory away, the next use of each page goes to the host
  # and takes 6 to 10 µs here instead of 2, which would distort the cost of copying pages after a fork.
  def warm(bytes) = system(RbConfig.ruby, "-e", "'x' * #{bytes}")

  # Reads all memory of a process that is its own. If the hypervisor has taken memory away that was not used for some seconds, the next
  # use of each page takes 11 µs, which would be charged to the first program that reads it.
  def touch(pid)
    areas = File.foreach("/proc/#{pid}/maps").grep(/\A\h+-\h+ rw.p/).reject { |area| area.include?("[v") }
    File.open("/proc/#{pid}/mem", "rb") do |memory|
      areas.each do |area|
        from, upto = area[/\S+/].split("-").map(&:hex)
        from.step(upto - 1, 4 << 20) { |at| memory.pread([4 << 20, upto - at].min, at) }
      rescue SystemCallError
        next # It was unmapped meanwhile.
      end
    end
  end

  def write(name, lines)
    path = File.join(RESULTS, name)
    FileUtils.mkdir_p(RESULTS)
    File.write(path, "#{lines.join("\n")}\n")
    puts lines
    Figures.new.write if RESULTS == Figures::RESULTS
  end
end
