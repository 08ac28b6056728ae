# frozen_string_literal: true

module Diagctl
  # Notes in the store how a process ended: one line beside its recorded polls, which `diagctl deaths` reads. Starts no program and
  # needs no library, so it costs a process that exits less than a millisecond, and a Puma master may do it.
  #
  # Any process. Nothing depends on a note: one that cannot be written is left out.
  #
  # @api private
  module Ending
    FILE = "samples.jsonl"
    # Created by polls only. Without a poll there is nothing to note, and a FIFO in its place must not block.
    FLAGS = File::WRONLY | File::APPEND | File::NOFOLLOW | File::NONBLOCK
    # Names that go into the line as they are.
    PLAIN = /\A[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}\z/

    class << self
      # @param by [String] who notes it: "process", "parent" or "killer"
      # @param start_ticks [String, nil] nil if the process has been reaped
      # @param facts [Hash{Symbol=>Integer,String,true}] text that is not plain is left out
      # @return [Boolean] whether it is written
      def note(dir, by:, pid:, start_ticks: nil, **facts)
        fields = { by: by, pid: pid, pid_ns: namespace, start_ticks: start_ticks&.to_i, **facts }
        pairs = fields.filter_map { |name, value| json(value)&.then { |text| %("#{name}":#{text}) } }
        at = Process.clock_gettime(Process::CLOCK_REALTIME, :millisecond)
        line = %({"at":#{at},"ended":{#{pairs.join(',')}}}\n)
        File.open(File.join(dir, FILE), FLAGS) { |file| file.syswrite(line) == line.bytesize }
      rescue SystemCallError
        false
      end

      # @return [String, nil] when the process started, in clock ticks since boot
      def start_ticks(pid)
        File.binread("/proc/#{pid}/stat")[Holder::START, 1]
      rescue SystemCallError
        nil
      end

      private

      # Read anew, because a child may be in another namespace than the process that loaded this.
      def namespace
        File.readlink("/proc/self/ns/pid")[/\d+/].to_i
      end

      def json(value)
        case value
        when Integer, true then value.to_s
        when PLAIN then %("#{value}")
        end
      end
    end
  end
end
