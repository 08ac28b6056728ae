# frozen_string_literal: true

require_relative "support/e2e"
require_relative "support/age"
require "stringio"
require "zlib"

# Reports are encrypted before they reach the disk, and the standard program age reads them.
class EncryptionTest < E2E::Case
  SECRET = "swordfish-0xa9e5ec2e7"
  # Of the worker itself, of its forked child, and of diagctl.
  REPORTS = %w[gc_stat threads smaps process object_counts heap_dump].freeze
  INSTALL = "SECRETS = Array.new(5000) { |i| \"#{SECRET}-\#{i}\" }\nThread.new { Thread.current.name = #{SECRET.inspect}; sleep }"

  def setup
    super
    @age = E2E::Age.new(@root, "mine")
    encrypt
  end

  def test_no_plain_byte_of_a_puma_is_ever_in_the_store
    server = puma(initializer: INSTALL)
    seen = watch_the_store { request(*REPORTS) }
    assert_operator seen.fetch(:encrypted), :>, 0, "the store was looked at while a report was written"
    assert_empty seen.fetch(:plain)
    id = captures.first.fetch("id")
    assert_all_encrypted(id, REPORTS)
    assert_includes unpacked(id, "heap_dump"), SECRET
    assert_includes unpacked(id, "threads"), SECRET
    assert_secret_is_nowhere
    assert server.get("/")
    refute_includes server.log, @age.secret
  end

  def test_inline_reports_of_a_sidekiq_and_what_was_finished_before_a_kill_are_encrypted
    server = sidekiq(head: "BALLAST = Array.new(1_000_000) { |i| i.to_s }")
    wait_until("a first poll", tell: server.method(:log)) { !Dir.glob("#{@store}/samples/*").empty? }
    id = request("sidekiq", "gc_stat")
    assert_all_encrypted(id, %w[sidekiq gc_stat])
    diagctl!("request", "gc_stat", "heap_dump", "--reason", "to be killed")
    during_a_dump { |dumper, _| E2E::Processes.signal(:KILL, dumper) }
    id = wait_for_captures(server, 2).first.fetch("id")
    reports = meta(id).fetch("reports").to_h { |report| [report["name"], report] }
    refute_nil reports.dig("heap_dump", "error")
    # Depending on the moment it is left out, or as far as it goes, and encrypted like all others.
    unpacked(id, "heap_dump") if reports.dig("heap_dump", "file")
    assert_equal "gc_stat.json.gz.age", reports.dig("gc_stat", "file")
    assert_equal JSON.parse(unpacked(id, "gc_stat")), JSON.parse(read("fetch", "#{id}:gc_stat", "-o", "-").out)
  end

  def test_every_reader_takes_the_identity_and_says_so_without_one
    server = puma
    ids = Array.new(2) { request("smaps", "gc_stat", "heap_dump") }
    commands = [%w[fetch latest:smaps -o -], %w[heap top latest], ["heap", "diff", *ids], %w[diagnose latest], ["compare", *ids.reverse]]
    commands.each do |command|
      told = diagctl(*command)
      refute told.ok?, told
      assert_match(/is encrypted to #{@age.recipient}.*--identity FILE/m, told.err)
      assert_predicate read(*command), :ok?
      assert_predicate diagctl(*command, env: env(DIAGCTL_IDENTITY: @age.key)), :ok?
    end
    assert_predicate diagctl("fetch", "latest:gc_stat", "--identity", "-", "-o", "-", stdin: File.read(@age.key)), :ok?
    stranger = E2E::Age.new(@root, "stranger")
    told = diagctl("fetch", "latest:smaps", "-o", "-", "--identity", stranger.key)
    assert_match(/no identity in \S*stranger.key matches: .* encrypted to #{@age.recipient}/, told.err)
    assert_includes diagctl!("list").out, "smaps(encrypted)"
    assert_match(/^encrypted +to #{@age.recipient}/, diagctl!("show", ids.first).out)
    assert_predicate diagctl("verify", "--all"), :ok?
    assert server.get("/")
  end

  def test_reports_that_are_excepted_need_no_key
    encrypt(except: %w[heap_summary smaps_rollup gc_stat], values: {})
    puma
    id = request("smaps_rollup", "gc_stat", "heap_dump")
    encrypted = meta(id).fetch("reports").to_h { |report| [report["name"], report["encryption"]] }
    assert_equal({ "smaps_rollup" => nil, "gc_stat" => nil, "heap_dump" => "age", "heap_summary" => nil }, encrypted)
    assert_predicate diagctl("diagnose", id), :ok?
    assert_predicate diagctl("heap", "top", "#{id}:heap_summary"), :ok?
    assert_match(/^encrypted .*readable: /, diagctl!("show", id).out)
  end

  # That of a command, too: as its stdout, and as its file.
  def test_a_heap_summary_that_is_readable_holds_no_value
    encrypt(except: %w[heap_summary])
    dump = File.join(@root, "dump.json")
    File.write(dump, %({"address":"0x7fc4927c4120", "type":"STRING", "bytesize":#{SECRET.bytesize}, "value":"#{SECRET}", "memsize":40}\n))
    of_stdout = diagctl!("run", "--report", "heap_summary", "--", "cat", dump).out.strip
    as_files = %w[heap_summary heap_summary.json heap_summary.txt Heap_Summary].map do |file|
      diagctl!("run", "--", "sh", "-c", "cp #{dump} \"$DIAGCTL_CAPTURE_DIR/#{file}\"").out.strip
    end
    assert_equal 1, JSON.parse(report(of_stdout, "heap_summary")).dig("objects", "count")
    summaries = as_files.map { |id| meta(id).fetch("reports").map { |report| report.values_at("name", "encryption") } }
    assert_equal [["heap_summary", nil]], summaries[0]
    assert_equal [["heap_summary_txt", "age"]], summaries[2]
    told = diagctl("run", "--json", "--", "sh", "-c", "echo #{SECRET} > \"$DIAGCTL_CAPTURE_DIR/heap_summary\"")
    assert_equal 5, told.status, told
    assert_match(/is no heap dump/, told.json.dig("reports", 0, "error"))
    assert_nil told.json.dig("reports", 0, "file")
    Dir.glob(File.join(@store, "reports/*/*.gz")).each { |path| refute_includes Zlib::GzipReader.open(path, &:read), SECRET, path }
  end

  # A heap dump that was fetched as it is stored is read from the file.
  def test_a_file_that_is_cut_off_or_changed_is_told
    puma
    id = request("heap_dump")
    path = File.join(@root, "dump.age")
    diagctl!("fetch", "#{id}:heap_dump", "--raw", "-o", path)
    assert_predicate read("heap", "top", path), :ok?
    whole = File.binread(path)
    { whole[0...-1] => "cut off or was changed", whole[0, (whole.size >> 16 << 16) - (1 << 16)] => "cut off",
      whole[0, 100] => "cut off within its header", whole.dup.tap { |data| data.setbyte(data.size / 2, data.getbyte(data.size / 2) ^ 1) } => "changed" }.each do |data, expected|
      File.binwrite(path, data)
      told = read("heap", "top", path)
      refute_equal 0, told.status, told
      assert_match(/#{expected}/, told.err)
      assert_match(/error/, @age.complaint(path))
    end
  end

  # Age itself reads the kinds of identities that diagctl does not.
  def test_a_report_that_is_fetched_as_it_is_stored_needs_no_identity
    id = diagctl!("run", "--report", "text", "--", "echo", SECRET).out.chomp
    ssh = File.join(@root, "id_ed25519")
    File.write(ssh, "-----BEGIN OPENSSH PRIVATE KEY-----\n")
    [ssh, File.join(@root, "missing")].each do |identity|
      with = env(DIAGCTL_IDENTITY: identity)
      raw = diagctl!("fetch", "#{id}:text", "--raw", "-o", "-", env: with).out
      assert raw.b.start_with?("age-encryption.org/v1\n"), identity
      refute diagctl("fetch", "#{id}:text", "-o", "-", env: with).ok?, identity
    end
  end

  def test_a_table_that_breaks_stores_nothing_and_the_server_serves_on
    configure(**WITH_VALUES)
    server = puma(initializer: INSTALL)
    wait_until("a first poll") { File.exist?(File.join(@store, "config.good.toml")) }
    { "recipients = [\"#{@age.recipient[0...-1]}\"]" => "not a whole recipient", "recipients = []" => "empty",
      "recipients = [\"#{@age.secret}\"]" => "a secret key, not a recipient", "recipients = [" => "TOML" }.each do |text, expected|
      configure(encrypt: text, **WITH_VALUES)
      told = diagctl("config", "check")
      assert_equal 3, told.status
      assert_includes told.err, expected
      id = request("gc_stat", "smaps", "heap_dump", partial: true)
      reports = meta(id).fetch("reports")
      assert_equal [nil], reports.map { |report| report["file"] }.uniq
      assert(reports.all? { |report| report["error"].include?("cannot be encrypted") }, reports.inspect)
      assert server.get("/")
    end
    assert_secret_is_nowhere
    [server.log, diagctl("config", "show").to_s, diagctl("doctor").to_s].each { |told| refute_match(/#{@age.secret[20, 20]}/i, told) }
    encrypt
    assert_all_encrypted(request("gc_stat"), %w[gc_stat])
  end

  # By a change of the workers' file, and by a command with a file of its own.
  def test_encryption_that_is_turned_off_is_an_event_and_a_warning_until_it_is_meant
    puma
    request("gc_stat")
    assert_empty turns
    # As in a store of an earlier version.
    File.delete(File.join(@store, "encryption.json"))
    configure
    wait_until("the poll has seen the file") { turns.any? }
    assert_match(/\Areports are stored in plain from now on: #{config_path} has no \[encrypt\]; earlier captures are encrypted to #{@age.recipient}\z/,
                 turns.first.fetch("reason"))
    request("gc_stat")
    assert_equal %w[encryption_off], (turns.map { |event| event["event"] })
    expected = /encrypt: missing: reports are stored in plain since 2\S+; earlier captures are encrypted to #{@age.recipient}/
    assert_match(/^warning +#{expected}/, diagctl!("status").out.gsub(/\n {11}/, " "))
    check = diagctl("config", "check")
    assert_equal 3, check.status
    assert_match expected, check.err
    assert_match expected, diagctl("doctor").out.gsub(/\s+/, " ")
    File.write(config_path, "encrypt = false\n#{File.read(config_path)}")
    refute_match(/encrypt:/, diagctl!("status").out + diagctl("config", "check").err + diagctl("doctor").out)
    encrypt
    wait_until("the poll has seen the file") { turns.size == 2 }
    File.write(other = File.join(@root, "other.toml"), "")
    assert_match(/this capture is stored in plain: #{other} has no \[encrypt\]/, diagctl!("--config", other, "run", "--report", "x", "--", "echo").err)
    assert_equal %w[encryption_off encryption_on encryption_off], (turns.map { |event| event["event"] })
  end

  private

  def turns
    diagctl!("events", "--json").json.fetch("events").select { |event| event["event"].start_with?("encryption") }
  end

  def encrypt(except: [], values: WITH_VALUES)
    configure(encrypt: "recipients = [\"#{@age.recipient}\"]\nexcept = #{except.inspect}", **values)
  end

  def read(*command) = diagctl(*command, "--identity", @age.key)

  def request(*reports, partial: false)
    result = diagctl("request", *reports, "--reason", "to be encrypted", "--wait")
    assert(result.ok? || partial, result)
    result.out.strip[/\S+/] || captures.first.fetch("id")
  end

  # The content of a report as the standard programs read it.
  def unpacked(id, name)
    report = meta(id).fetch("reports").find { |one| one["name"] == name }
    Zlib::GzipReader.new(StringIO.new(@age.decrypt(File.join(@store, "reports", id, report.fetch("file"))))).read
  end

  def assert_all_encrypted(id, names)
    assert_equal [@age.recipient], meta(id).fetch("recipients")
    reports = meta(id).fetch("reports")
    assert_empty names - reports.map { |report| report["name"] }
    reports.each do |report|
      assert_nil report["error"]
      assert_equal ["age", true], [report["encryption"], report["file"].end_with?("gz.age")], report
      stored = File.binread(File.join(@store, "reports", id, report["file"]))
      assert_equal [true, stored.size], [stored.start_with?(E2E::Age::MAGIC), report["stored_bytes"]]
      assert_equal report["raw_bytes"], unpacked(id, report["name"]).bytesize
    end
  end

  # Looks at every file of the store again and again while the block runs.
  def watch_the_store
    seen, done = { encrypted: 0, plain: [] }, false
    watcher = Thread.new do
      until done
        Dir.glob("#{@store}/{staging,reports}/*/{*,.*}", File::FNM_DOTMATCH).each do |path|
          content = File.file?(path) ? File.binread(path, 1 << 20).to_s : ""
          seen[:encrypted] += 1 if path.end_with?(".partial") && content.start_with?(E2E::Age::MAGIC)
          plain = content.start_with?("\x1f\x8b".b, "\x28\xb5\x2f\xfd".b) || content.include?(SECRET)
          seen[:plain] << path if plain
        rescue Errno::ENOENT
          next
        end
      end
    end
    yield
    seen
  ensure
    done = true
    watcher.join
  end

  def assert_secret_is_nowhere
    Dir.glob(File.join(@store, "**", "*"), File::FNM_DOTMATCH).select { |path| File.file?(path) }.each do |path|
      content = File.binread(path)
      refute content.start_with?("\x1f\x8b".b), "#{path} is compressed and not encrypted"
      refute_includes content, SECRET, path
      refute_match(/#{@age.secret[20, 20]}/i, content, path)
    end
  end
end
