# frozen_string_literal: true

module E2E
  # reap (github.com/djudd/reap), which finds what the objects of a heap dump retain.
  module Reap
    # @return [String, nil]
    def self.path
      tools = File.join(ENV["CARGO_TARGET_DIR"] || File.expand_path("../../../target", __dir__), "tools/bin")
      [tools, *ENV.fetch("PATH").split(":")].map { |dir| File.join(dir, "reap") }.find { |file| File.executable?(file) }
    end

    # By its folded stacks: each line is an object with those that dominate it, and its own size. What it prints is rounded.
    #
    # @return [Hash{String => Array(Integer, Integer)}] retained bytes and objects by address
    def self.retained(path, json)
      folded = "#{json}.folded"
      result = Command.run(path, json, "--folded", folded, env: { "PATH" => ENV.fetch("PATH") }, deadline: 300)
      raise result.to_s unless result.ok?

      sizes = Hash.new { |all, address| all[address] = [0, 0] }
      File.foreach(folded) do |line|
        stack, bytes = line.match(/\A(.*) (\d+)$/m).captures
        stack.scan(/\[(0x\h+)\]/) do |(address)|
          sizes[address][0] += bytes.to_i
          sizes[address][1] += 1
        end
      end
      sizes
    end
  end
end
