# frozen_string_literal: true

require "digest"
require "etc"
require_relative "../../e2e/support/e2e"

# Tests that break things on purpose: TORTURE=full tries everything, TORTURE=short (the default) a sample, for `make test`.
# What is random comes from one seed, which is printed; SEED=… repeats a run.
module Torture
  FULL = ENV.fetch("TORTURE", "short") == "full"
  SEED = Integer(ENV.fetch("SEED", rand(1 << 32)))
  THREADS = [Etc.nprocessors, 2].max
  NOBODY = 65_534

  # So many failures of one kind are told; then there is no point in going on.
  SHOWN = 12

  warn "torture: #{FULL ? 'full' : 'short'}, SEED=#{SEED}"

  module_function

  NUMBER = Mutex.new

  # Never the same twice, on whatever thread.
  def next_number = NUMBER.synchronize { @number = @number.to_i + 1 }

  # All of a list, or in the short form so many of it, spread evenly from a random beginning.
  def sample(list, size)
    return list if FULL || list.size <= size

    stride = list.size.fdiv(size)
    first = Random.new(SEED).rand(stride)
    Array.new(size) { |i| list[((i * stride) + first).floor] }
  end

  # Runs the block for every item on a few threads. What fails is told together, the first few of it.
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

  # A test in a directory in memory where that is possible: thousands of small stores are made and thrown away.
  class Case < E2E::Case
    DIRECTORY = "/dev/shm"

    def setup
      ENV["TMPDIR"] = DIRECTORY if File.writable?(DIRECTORY)
      super
    end

    # A command on a store other than the test's own.
    def on(store, *argv, env: self.env, **options) = E2E::Command.run(E2E::BIN, "--dir", store, *argv, env: env, **options)

    # Captures with their data, as they were acknowledged: id => { file => sha256 }.
    def acknowledged(store)
      ids = Dir.children(File.join(store, "reports"))
      ids.to_h { |id| [id, checksums(store, id)] }
    end

    # The checksums that a capture recorded, after its files were found to have them.
    def checksums(store, id)
      dir = File.join(store, "reports", id)
      reports = JSON.parse(File.read(File.join(dir, "meta.json"))).fetch("reports")
      reports.filter_map { |report| [report["file"], report["sha256"]] if report["file"] }.each do |file, sha256|
        assert_equal sha256, Digest::SHA256.file(File.join(dir, file)).hexdigest, "#{dir}/#{file}"
      end.to_h
    end

    # What must hold whatever happened to a store: it opens, what was acknowledged is there, what is listed is whole, the next
    # dumper gets its turn, and collecting garbage leaves nothing that nobody knows.
    def assert_sound(store, kept:, what:)
      # A first command that was disturbed may not have got as far as a store.
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
      # Of the requests that wait, the one that was disturbed may come first.
      results = [dumper.acquire]
      assert dumper.granted?, "#{what}: the next acquire\n#{results.first}"
      results += dumper.answer.fetch("reports").map { |report| dumper.put(report.fetch("name"), E2E.dump("")) } << dumper.finalize
      assert results.all?(&:ok?), "#{what}: the next capture\n#{results.join}"
      assert_path_exists File.join(store, "reports", dumper.capture, "meta.json")
    ensure
      dumper&.close
    end

    ID = '\d{8}T\d{9}Z-\h{8}'
    KNOWN = %r{\A(FORMAT|(lease|state)\.(lock|json)|(index|events|samples|samples\.1)\.jsonl|execs\.json|catalog\.bin|requests\.json|config\.(good\.toml|cache)|
                 samples/\d+\.json|requests/#{ID}\.json|reports/#{ID}/(pinned|meta\.json|[a-z][\w.]*\.(gz|zst))|
                 (samples|requests|reports|staging|trash|quarantine|reports/#{ID}))\z}x

    # After garbage was collected there is no file whose purpose is not known, and none that no capture mentions.
    def assert_no_leak(store, what)
      # Temporaries that might still be written are left alone for ten minutes.
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

    # A throw-away copy of a store.
    def copy_of(template)
      copy = File.join(@root, "copy-#{Torture.next_number}")
      FileUtils.cp_r(template, copy, preserve: true)
      yield copy
      FileUtils.rm_rf(copy)
    end
  end
end
