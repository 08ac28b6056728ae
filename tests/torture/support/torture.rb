# frozen_string_literal: true

require "digest"
require "etc"
require_relative "../../e2e/support/e2e"

# Tests that break things on purpose. TORTURE=full tries everything; TORTURE=short (the default) tries a sample, for `make
# test`. All random choices come from one seed, which is printed; SEED=… repeats a run.
module Torture
  FULL = ENV.fetch("TORTURE", "short") == "full"
  SEED = Integer(ENV.fetch("SEED", rand(1 << 32)))
  THREADS = [Etc.nprocessors, 2].max
  NOBODY = 65_534

  # The number of failures of one kind that are reported. After that the test stops.
  SHOWN = 12

  warn "torture: #{FULL ? 'full' : 'short'}, SEED=#{SEED}"

  module_function

  NUMBER = Mutex.new

  # Returns a number that is unique across threads.
  def next_number = NUMBER.synchronize { @number = @number.to_i + 1 }

  # Returns the whole list or, in the short form, a sample of this size, evenly spaced from a random start.
  def sample(list, size)
    return list if FULL || list.size <= size

    stride = list.size.fdiv(size)
    first = Random.new(SEED).rand(stride)
    Array.new(size) { |i| list[((i * stride) + first).floor] }
  end

  # Runs the block for every item on a few threads. Reports the first few failures together.
  def each_parallel(items, threads: THREADS)
    queue = Queue.new(items)
    queue.close
    failures = Queue.new
    workers = Array.new(threads) do
      Thread.new do
        while (item = queue.pop)
          begin
            yield item
          rescue Minitest::Assertion, StandardError => e
            failures << e
            queue.clear if failures.size >= SHOWN
          end
        end
      end
    end
    workers.each(&:join)
    return if failures.empty?

    raise Minitest::Assertion, "#{failures.size} of #{items.size} failed:\n#{Array.new(failures.size) { failures.pop.message }.join("\n\n")}"
  end

  # A test with a directory in memory where possible, because thousands of small stores are created and deleted.
  class Case < E2E::Case
    DIRECTORY = "/dev/shm"

    def setup
      ENV["TMPDIR"] = DIRECTORY if File.writable?(DIRECTORY)
      super
    end

    # Runs a command on another store.
    def on(store, *argv, env: self.env, **options) = E2E::Command.run(E2E::BIN, "--dir", store, *argv, env: env, **options)

    # Returns the captures with their data as acknowledged: id => { file => sha256 }.
    def acknowledged(store)
      ids = Dir.children(File.join(store, "reports"))
      ids.to_h { |id| [id, checksums(store, id)] }
    end

    # Returns a capture's recorded checksums, after checking them against its files.
    def checksums(store, id)
      dir = File.join(store, "reports", id)
      reports = JSON.parse(File.read(File.join(dir, "meta.json"))).fetch("reports")
      reports.filter_map { |report| [report["file"], report["sha256"]] if report["file"] }.each do |file, sha256|
        assert_equal sha256, Digest::SHA256.file(File.join(dir, file)).hexdigest, "#{dir}/#{file}"
      end.to_h
    end

    # Asserts everything that must hold for a store whatever happened to it: it opens, acknowledged captures are there, listed
    # captures are whole, the next dumper gets its turn, and garbage collection leaves nothing unknown.
    def assert_sound(store, kept:, what:)
      # A disturbed first command may have ended before it created a store.
      listed = kept.empty? && !File.exist?(File.join(store, "FORMAT")) ? [] : assert_opens(store, what)
      assert_empty kept.keys - listed, "#{what}: acknowledged captures are gone"
      listed.each do |id|
        sums = checksums(store, id)
        assert_equal kept[id], sums, "#{what}: #{id} changed" if kept[id]
      end
      fetched = listed.first and assert_fetches(store, fetched, what)
      assert_next_capture(store, what)
      assert_no_leak(store, what)
    end

    def assert_opens(store, what)
      listing = on(store, "list", "--json")
      assert listing.ok?, "#{what}\n#{listing}"
      assert_empty listing.json.fetch("damaged"), what
      status = on(store, "status", "--json")
      assert status.ok?, "#{what}\n#{status}"
      listing.json.fetch("captures").map { |capture| capture.fetch("id") }
    end

    def assert_fetches(store, id, what)
      report = JSON.parse(File.read(File.join(store, "reports", id, "meta.json"))).fetch("reports").find { |r| r["file"] } or return
      result = on(store, "fetch", id, report.fetch("name"), "-o", "-")
      assert result.ok?, "#{what}\n#{result}"
      assert_equal report.fetch("raw_bytes"), result.out.bytesize, what
    end

    def assert_next_capture(store, what)
      request = on(store, "request", "gc_stat", "--reason", "the next one")
      assert request.ok?, "#{what}\n#{request}"
      dumper = E2E::LeaseHolder.new(store, env)
      # Among the pending requests, the one that was disturbed may come first.
      results = [dumper.acquire]
      assert dumper.granted?, "#{what}: the next acquire\n#{results.first}"
      results += dumper.answer.fetch("reports").map { |report| dumper.put(report.fetch("name"), E2E.dump("")) } << dumper.finalize
      assert results.all?(&:ok?), "#{what}: the next capture\n#{results.join}"
      assert_path_exists File.join(store, "reports", dumper.capture, "meta.json")
    ensure
      dumper&.close
    end

    ID = '\d{8}T\d{9}Z-\h{8}'
    KNOWN = %r{\A(FORMAT|(lease|state)\.(lock|json)|(index|events|samples|samples\.1)\.jsonl|(execs|walker|event_counts)\.json|catalog\.bin|requests\.json|config\.(good\.toml|cache)|
                 samples/\d+(-\d+-\h*)?\.json|requests/#{ID}\.json|reports/#{ID}/(pinned|meta\.json|[a-z][\w.]*\.(gz|zst))|
                 (samples|requests|reports|staging|trash|quarantine|reports/#{ID}))\z}x

    # Asserts that after garbage collection no file has an unknown purpose, and none is missing from its capture's record.
    def assert_no_leak(store, what)
      # Temporary files are kept for ten minutes, because they might still be written to.
      long_ago = Time.now - 3600
      Dir.glob("#{store}/**/.tmp-*", File::FNM_DOTMATCH).each { |path| File.utime(long_ago, long_ago, path) }
      result = on(store, "gc")
      assert result.ok?, "#{what}\n#{result}"
      assert_empty files(store).grep_v(KNOWN), "#{what}: left behind"
      Dir.children(File.join(store, "reports")).each do |id|
        extra = Dir.children(File.join(store, "reports", id)) - checksums(store, id).keys - %w[meta.json pinned]
        assert_empty extra, "#{what}: left behind in #{id}"
      end
    end

    def files(store) = Dir.glob("**/*", File::FNM_DOTMATCH, base: store).reject { |path| path.end_with?(".") }

    # Makes a disposable copy of a store.
    def copy_of(template)
      copy = File.join(@root, "copy-#{Torture.next_number}")
      FileUtils.cp_r(template, copy, preserve: true)
      yield copy
      FileUtils.rm_rf(copy)
    end
  end
end
