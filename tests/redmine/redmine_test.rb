# frozen_string_literal: true

require_relative "../e2e/support/e2e"

# Debian's Redmine, a Rails application of some size, as its package installs it: under Puma as www-data, from its own
# bundle, with the plugin. Runs in an image of the matrix (make redmine), where its files may be written to.
class RedmineTest < E2E::Case
  class Server < E2E::PumaServer
    APPLICATION = "/usr/share/redmine"

    def command = %w[setpriv --reuid=www-data --regid=www-data --init-groups bundle exec puma]

    def directory = APPLICATION
  end

  GEMS = <<~RUBY
    gem "puma"
    gem "diagctl", path: "#{E2E::ROOT}/ruby/diagctl"
    gem "puma-plugin-diagctl", path: "#{E2E::ROOT}/ruby/puma-plugin"
  RUBY
  PAGES = {
    "/" => %r{<title>Redmine</title>},
    "/login" => /<title>Redmine<.*name="username"/m,
    "/projects" => %r{<title>Projects - Redmine</title>}
  }.freeze

  # The dumper has the lowest priority, and clients are served all the while.
  PATIENCE = 300

  def setup
    super
    File.write(File.join(Server::APPLICATION, "Gemfile.local"), GEMS)
    FileUtils.chown_R("www-data", "www-data", @root)
    limits = 'limits = { max_count = 1, window = "1h" }'
    configure(rule("grown", 'memory_usage = { of = "process", metric = "rss", above = "50MiB" }', %w[heap_dump smaps threads process], limits) +
              rule("routine", 'timer = { every = "1s" }', %w[gc_stat object_counts ruby], limits))
  end

  def test_captures_by_rule_and_on_demand_while_its_pages_are_served
    server = Server.new(@root, env: env(RAILS_ENV: "production"), workers: 2, preload: true).start(deadline: 180)
    PAGES.each { |path, page| assert_match page, server.get(path) }
    traffic = E2E::Traffic.new(server, pages: PAGES, pause: 0.2)
    wait_for_captures(server, 2, deadline: PATIENCE)
    diagctl!("request", "heap_dump", "--reason", "what fills Redmine?", "--wait", deadline: PATIENCE)
    assert_equal 0, traffic.stop.failed, "of #{traffic.served + traffic.failed} pages"
    assert_operator traffic.served, :>, PAGES.size
    server.stop

    by_rule = captures.to_h { |capture| [capture.fetch("rule"), capture.fetch("id")] }
    assert_equal %w[grown on_demand routine], by_rule.keys.sort
    by_rule.each_value { |id| assert_empty meta(id).fetch("reports").select { |report| report["error"] } }
    by_rule.values_at("grown", "on_demand").each { |id| assert_classes_of_the_application(id) }
    assert_empty server.log.lines.grep(/warn/i)
    server.diagctl_lines.each { |line| assert_match(/\[diagctl\] capture \S+ \(\w+\) stored after/, line) }
    puts "#{traffic.served} pages served, 0 failed; heap dumps of #{by_rule.values_at('grown', 'on_demand').map { |id| raw_mib(id) }.join(' and ')} MiB"
  end

  private

  def assert_classes_of_the_application(id)
    names = diagctl!("fetch", "#{id}:heap_dump", "--as", "json", "-o", "-").out.lines.grep(/"type":"(CLASS|MODULE)"/).filter_map { |line| JSON.parse(line)["name"] }
    assert_empty %w[Rails ActiveRecord::Base ActionController::Base Project Issue RedmineApp::Application] - names
  end

  def raw_mib(id) = meta(id).fetch("reports").find { |report| report["name"] == "heap_dump" }.fetch("raw_bytes") / (1 << 20)
end
