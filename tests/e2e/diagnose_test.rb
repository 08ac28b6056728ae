# frozen_string_literal: true

require_relative "support/e2e"

# Real programs, each with another reason to be large. `diagnose` must name that one and no other.
class DiagnoseTest < E2E::Case
  GLIBC = %w[smaps gc_stat malloc_info object_counts siblings cgroup system].freeze
  JEMALLOC = GLIBC.map { |report| report == "malloc_info" ? "jemalloc_stats" : report }.freeze

  def test_retained_objects
    diagnosis = diagnose(:retained)
    assert_cause "retained_objects", diagnosis
    assert_operator part(diagnosis, "live_objects"), :>, 60 << 20
    assert_match(/live objects survived/, diagnosis.dig("verdict", "because").join)
    assert_match(/\Adiagctl request heap_dump --pid #{diagnosis.fetch('pid')} /, diagnosis.fetch("next").last.fetch("command"))
  end

  def test_retained_objects_under_jemalloc
    assert_cause "retained_objects", diagnose(:retained, jemalloc: true)
  end

  def test_a_burst_that_left_free_slots
    assert_cause "free_slots", diagnose(:burst)
  end

  def test_fragmentation_under_glibc
    assert_cause "fragmentation", diagnose(:holes)
  end

  # jemalloc returns the holes within its decay time, 10 s.
  def test_no_fragmentation_under_jemalloc
    worker = start(:holes, jemalloc: true)
    rss = -> { E2E::Processes.status(worker, "VmRSS") }
    wait_until("the holes are returned", deadline: 60) { rss.call < 60_000 }
    assert_nil capture_and_diagnose(worker, JEMALLOC).dig("verdict", "cause")
  end

  def test_native_memory_behind_zlib_objects
    diagnosis = diagnose(:zlib)
    assert_cause "native_behind_objects", diagnosis
    assert_match(/behind 400 Zlib::Deflate/, diagnosis.dig("verdict", "sentence"))
  end

  def test_native_memory_behind_openssl_objects
    diagnosis = diagnose(:openssl, jemalloc: true)
    assert_cause "native_behind_objects", diagnosis
    assert_match(/behind 6\d\d\d OpenSSL::SSL::SSLContext/, diagnosis.dig("verdict", "sentence"))
  end

  def test_native_memory_without_an_object
    [false, true].each { |jemalloc| assert_cause "native_without_object", diagnose(:c_library, jemalloc: jemalloc) }
  end

  # The captures of the hourly rule have a summary in place of the counts.
  def test_a_heap_summary_tells_the_same_as_object_counts
    reports = GLIBC.map { |report| report == "object_counts" ? "heap_summary" : report }
    { zlib: "native_behind_objects", c_library: "native_without_object", retained: "retained_objects" }.each do |program, cause|
      assert_cause cause, capture_and_diagnose(start(program), reports)
    end
  end

  # Without object_counts nobody can tell that memory from the content of strings.
  def test_native_memory_is_not_named_without_a_count_of_the_objects
    diagnosis = diagnose(:c_library, without: "object_counts")
    assert_nil diagnosis.dig("verdict", "cause"), diagnosis["verdict"]
    assert_match(/nothing tells which/, diagnosis.dig("verdict", "sentence"))
    assert_match(/\Adiagctl request .*object_counts/, diagnosis.fetch("next").first.fetch("command"))
  end

  # A library that maps memory itself: it is in nobody's figures, with all reports there are.
  def test_what_no_figure_explains_is_unknown_and_no_cause
    diagnosis = diagnose(:mapped)
    assert_unknown 0.5, diagnosis
    assert_match(/\ANot determined: 1\d\d\.\d MiB of .* is unknown\.\z/, diagnosis.dig("verdict", "sentence"))
    assert_match(/the mappings of the process/, diagnosis.dig("verdict", "wanted").join)
    assert_match(/\Adiagctl fetch \S+:smaps -o -\z/, diagnosis.fetch("next").last.fetch("command"))
  end

  # (the reports that could be had, what must be asked for)
  {
    "without_allocator_statistics" => [%w[smaps gc_stat object_counts], /malloc_info|jemalloc_stats/],
    "with_the_wrong_allocator_statistics" => [%w[smaps gc_stat jemalloc_stats object_counts], /malloc_info/],
    "with_smaps_rollup_alone" => [%w[smaps_rollup], /smaps: .*gc_stat: .*object_counts: /m]
  }.each do |name, (reports, wanted)|
    define_method("test_a_leak_of_a_c_library_#{name}_is_unknown_and_says_what_is_missing") do
      diagnosis = capture_and_diagnose(start(:c_library), reports)
      assert_unknown 0.5, diagnosis
      assert_match(wanted, diagnosis.dig("verdict", "wanted").join("\n"))
      assert_match(/\Adiagctl request /, diagnosis.fetch("next").first.fetch("command"))
    end
  end

  def test_copy_on_write_lost
    diagnosis = diagnose(:written_after_fork, workers: 3)
    assert_cause "copy_on_write_lost", diagnosis
    assert_equal 3, diagnosis.fetch("workers")
  end

  def test_pages_that_are_still_shared_are_not_lost
    diagnosis = diagnose(:shared_after_fork, workers: 3)
    assert_cause "retained_objects", diagnosis
    assert_operator diagnosis.fetch("shared_bytes"), :>, 40 << 20
  end

  def test_too_many_processes
    group = memory_cgroup(380 << 20)
    diagnosis = diagnose(:many, workers: 8, wrapper: group.enter)
    assert_cause "too_many_processes", diagnosis
  ensure
    E2E::Processes.sweep
    group&.remove
  end

  # Two captures, and the part that grew between them.
  def test_compare_names_the_part_that_grew
    script = start_script
    take = ->(*reports) { diagctl!("request", *reports, "--reason", "x", "--wait").out.strip }
    first = take.call(*GLIBC)
    script.run('$kept = Array.new(400_000) { |i| "kept #{i} " + "x" * 60 }; GC.start')
    wait_until("it has grown") { E2E::Processes.status(script.pid, "VmRSS") > 70_000 }
    second = take.call(*GLIBC)
    compared = diagctl!("compare", first, second, "--json").json
    assert_equal ["live_objects", true], compared.values_at("grew", "same_process"), compared
    assert_equal "String", compared.fetch("classes").first.fetch("class")
    text = diagctl!("compare", first, second).out
    assert_match(/^live Ruby objects .*\+\d\d\.\d MiB$/, text)
    assert_fits text
    swapped = diagctl!("compare", second, first)
    assert_equal text, swapped.out
    bare = take.call("smaps_rollup", "gc_stat")
    assert_match(/different reports/, diagctl!("compare", second, bare).out)
  end

  # Live figures, with those of Ruby from the newest capture.
  def test_a_live_process
    script = start_script
    first = diagctl!("diagnose", "--pid", script.pid.to_s, "--json").json
    assert_equal [nil, nil], [first.fetch("capture"), first.dig("verdict", "cause")]
    assert_match(/smaps|unknown|stands out/i, first.dig("verdict", "sentence"))
    id = diagctl!("request", *GLIBC, "--reason", "x", "--wait").out.strip
    later = diagctl!("diagnose", "--pid", script.pid.to_s, "--json").json
    assert_equal id, later.fetch("capture"), later
    assert_operator part(later, "live_objects"), :>, 1 << 20
    script.run('$kept = "x" * (64 << 20)')
    wait_until("it has grown") { E2E::Processes.status(script.pid, "VmRSS") > 80_000 }
    grown = diagctl!("diagnose", "--pid", script.pid.to_s, "--json").json
    assert_nil grown.fetch("capture"), "the figures of the capture do not fit any more"
    refute grown.fetch("adds_up")
    refute_includes grown.fetch("parts").map { |part| part["part"] }, "live_objects"
  end

  def test_without_arguments_the_largest_process_is_meant
    small, large = start(:many, workers: 8), start(:retained)
    [small, large].each { |pid| diagctl!("request", "smaps", "gc_stat", "--pid", pid.to_s, "--reason", "x", "--wait") }
    diagctl!("request", "smaps", "--pid", small.to_s, "--reason", "the newest, of another", "--wait")
    assert_equal large, diagctl!("diagnose", "--json").json.fetch("pid")
    assert_equal large, diagctl!("diagnose", "--role", "worker", "--json").json.fetch("pid")
    assert_equal 4, diagctl("diagnose", "--role", "nobody").status
    refute_match(/is larger/, diagctl!("diagnose").err)
    start(:zlib)
    larger = wait_until("a larger one polls") { diagctl!("diagnose").err[/\Adiagctl: process (\d+) worker one is larger, \S+ MiB, and has no capture with smaps: /, 1] }
    refute_includes [small, large], larger.to_i
  end

  def test_a_capture_without_mappings_says_what_to_request
    id = store_capture("gc_stat" => "{}")
    result = diagctl("diagnose", id)
    assert_equal 4, result.status, result
    assert_match(/has neither smaps nor smaps_rollup/, result.err)
    assert_match(/diagctl request smaps gc_stat object_counts/, result.err)
  end

  private

  def start(cause, workers: 1, jemalloc: false, wrapper: [])
    preload = jemalloc ? { LD_PRELOAD: "libjemalloc.so.2" } : {}
    E2E::MemoryProgram.new(@root, env(**preload), cause, wrapper: wrapper).worker(workers)
  end

  def diagnose(cause, jemalloc: false, without: nil, **options)
    worker = start(cause, jemalloc: jemalloc, **options)
    capture_and_diagnose(worker, (jemalloc ? JEMALLOC : GLIBC) - [without])
  end

  def capture_and_diagnose(pid, reports)
    taken = diagctl("request", *reports, "--pid", pid.to_s, "--reason", "diagnose", "--wait")
    # 5: one of the reports could not be made.
    assert_includes [0, 5], taken.status, taken
    id = taken.out.strip
    @text = diagctl!("diagnose", id).out
    puts "\n#{name}\n#{@text}" if ENV["SHOW"]
    assert_fits @text
    diagctl!("diagnose", id, "--json").json
  end

  # The verdict in words for each cause.
  SENTENCES = {
    "retained_objects" => /^Live Ruby objects: /, "free_slots" => /^Free slots of Ruby's heap: /, "fragmentation" => /^Fragmentation: /,
    "native_behind_objects" => /^Native memory behind Ruby objects: /, "native_without_object" => /^Native memory that no Ruby object/,
    "stacks" => /^Stacks of threads/, "mapped_files" => /^Mapped files: /, "copy_on_write_lost" => /^Copy-on-write lost: /,
    "too_many_processes" => /^The number of processes: /
  }.freeze

  # The remainder is shown, in bytes and in words, and no cause is named for it.
  def assert_unknown(share, diagnosis)
    verdict = diagnosis.fetch("verdict")
    assert_equal [nil, "none", false], [*verdict.values_at("cause", "confidence"), diagnosis.fetch("adds_up")], verdict
    assert_empty SENTENCES.values.grep(->(words) { words.match?(@text) })
    assert_operator verdict.fetch("unknown_bytes"), :>, diagnosis.fetch("rss_bytes") * share
    assert_equal verdict.fetch("unknown_bytes"), part(diagnosis, "unknown")
    assert_match(/^  unknown +\d/, @text)
  end

  # The figures must add up, and the confidence must not be low. No other cause is named, neither in the verdict nor in the text.
  def assert_cause(expected, diagnosis)
    assert_equal [expected], SENTENCES.filter_map { |cause, words| cause if words.match?(@text) }, @text
    assert_equal expected, diagnosis.dig("verdict", "cause"), diagnosis["verdict"]
    assert diagnosis.fetch("adds_up"), diagnosis.fetch("parts")
    assert_includes %w[medium high], diagnosis.dig("verdict", "confidence")
    sum = diagnosis.fetch("parts").sum { |part| part.fetch("bytes") }
    assert_equal diagnosis.fetch("rss_bytes") + diagnosis.fetch("excess_bytes"), sum
  end

  def part(diagnosis, name) = diagnosis.fetch("parts").find { |part| part["part"] == name }.fetch("bytes")

  # Commands are not broken.
  def assert_fits(text)
    long = text.lines.map(&:chomp).reject { |line| line.size <= 80 || line.start_with?("  diagctl ", "  export ") }
    assert_empty long
  end
end
