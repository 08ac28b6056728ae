# frozen_string_literal: true

require "json"
require "open3"
require_relative "wait"

module E2E
  # The output and the exit status of a command.
  Result = Struct.new(:argv, :out, :err, :status) do
    def ok? = status == 0

    def json = JSON.parse(out)

    def to_s = "$ #{argv.join(' ')}\n#{out}#{err}(status #{status})"
  end

  # Runs a command to its end, in an environment that contains only the given variables.
  module Command
    module_function

    # `status` is the exit status, or the negative number of the signal that ended the command.
    def run(*argv, env: {}, stdin: "", deadline: 60, **options)
      Open3.popen3(env, *argv.map(&:to_s), unsetenv_others: true, **options) do |input, out, err, waiter|
        readers = [out, err].map { |io| Thread.new { io.read } }
        feed(input, stdin)
        unless waiter.join(deadline * PATIENCE)
          Process.kill(:KILL, waiter.pid)
          raise "no end within #{deadline * PATIENCE} s: #{argv.join(' ')}"
        end
        status = waiter.value
        Result.new(argv, *readers.map { |reader| reader.value.force_encoding("UTF-8") }, status.exitstatus || -status.termsig)
      end
    end

    def feed(input, data)
      input.binmode
      input.write(data)
      input.close
    rescue Errno::EPIPE
      nil
    end
  end
end
