# frozen_string_literal: true

require_relative "support/e2e"

# If a plugin defines `config`, Puma drops the first option of the user's puma.rb. This plugin must not cause that.
class PluginOptionsTest < E2E::Case
  def test_first_option_survives_in_a_cluster_with_C = assert_first_options_survive(workers: 2)

  def test_first_option_survives_in_a_cluster_without_C = assert_first_options_survive(workers: 2, config_flag: false)

  def test_first_option_survives_in_single_mode_with_C = assert_first_options_survive(workers: 0)

  def test_first_option_survives_in_single_mode_without_C = assert_first_options_survive(workers: 0, config_flag: false)

  def test_hooks_of_the_application_still_run
    booted = File.join(@root, "booted")
    # The hook was renamed in Puma 7, which warns about the old name.
    hook = "public_send(respond_to?(:before_worker_boot) ? :before_worker_boot : :on_worker_boot)"
    server = puma(workers: 2, first: "#{hook} { |index| File.write(\"#{booted}-\#{index}\", \"\") }")
    assert_equal 2, Dir["#{booted}-*"].size
    diagctl!("request", "gc_stat", "--reason", "the plugin's own hook ran too", "--wait")
    server.stop
  end

  private

  # Puma reads the tag when it sets a process title, after plugins have started.
  def assert_first_options_survive(**mode)
    server = puma(first: 'tag "kept-first"', **mode)
    titles = server.workers.map { |pid| E2E::Processes.argv(pid).join(" ") }
    titles.each { |title| assert_includes title, "[kept-first]" }
    # In Puma 5.6 the server is visible to a thread of its pool only after that thread's first request.
    served = server.get("/")[/\d+$/]
    diagctl!("request", "puma", "--pid", served, "--reason", "the plugin is at work", "--wait")
    assert_equal 2, JSON.parse(diagctl!("fetch", "latest:puma", "-o", "-").out).dig("server", "max_threads")
    server.stop
  end
end
