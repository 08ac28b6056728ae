# frozen_string_literal: true

require_relative "support/image"
require_relative "support/gem_index"

# A real Rails application in a Debian with Ruby and Bundler: Rails 6.1 in Debian 12. Debian's Rails, Puma and Sidekiq stand for those of rubygems.org, which
# cannot be reached, and an index of our gems alone stands for its index.
class RailsTest < Minitest::Test
  NEW = "rails new /srv/shop %s --skip-javascript --skip-bootsnap --skip-git --skip-bundle " \
        "--skip-test --quiet && cd /srv/shop && bundle config set --global mirror.https://rubygems.org file:///srv/gems"
  # Those of a new application, but for the groups of development and test, which Debian has no packages of.
  GEMFILE = ["rails", "sqlite3", "puma"].freeze

  def setup
    @image = E2E::Image.named(image) or skip "no image: #{E2E::Image.why}"
  end

  # The commands are those of docs/getting-started.md. Nothing but the Gemfile is edited.
  def test_five_commands_lead_from_the_gemfile_to_the_first_capture
    page = File.read(File.join(E2E::ROOT, "docs/getting-started.md"))
    commands = page[/^## Rails\n.*?```sh\n(.*?)```/m, 1].lines.map(&:strip)
    assert_operator commands.size, :<=, 5
    assert_operator commands.grep(/bundle|rails|diagctl/).size, :==, commands.size
    told = rails(<<~SH, gems: %w[puma-plugin-diagctl])
      #{commands.map { |command| command.sub(/^(.*server.*) &$/, '\1 > /tmp/server 2>&1 &') }.join("\n")}
      curl -sS -o /tmp/page http://127.0.0.1:3000/
      cat /tmp/server
      bundle exec diagctl show --json latest
      ls -ld /var/lib/diagctl
    SH
    assert_match(/^diagctl: captured .* of process \d+ \(puma single\)$/, told.err)
    assert_match(/^process \d+ puma single\ncapture .*\n\n.+ Confidence: \w+\.$/, told.out)
    assert_match(/"name": *"heap_dump"/, told.out)
  end

  def test_the_generator_adds_what_is_missing_once
    told = rails(<<~'SH', gems: %w[puma-plugin-diagctl sidekiq-diagctl sidekiq])
      cp config/puma.rb /tmp/puma.rb
      bin/rails generate diagctl:install
      sha256sum config/puma.rb config/initializers/diagctl.rb config/diagctl.toml > /tmp/sums
      bin/rails generate diagctl:install --skip
      sha256sum -c /tmp/sums
      test "$(grep -c '^plugin :diagctl' config/puma.rb)" = 1
      grep -qx 'Sidekiq.configure_server { |config| Diagctl::Sidekiq.install(config, job_rss: true) }' config/initializers/diagctl.rb
      ruby -c config/puma.rb config/initializers/diagctl.rb
      bundle exec diagctl config check config/diagctl.toml
      bin/rails runner 'puts "booted, started=#{Diagctl.started?}"'
      bin/rails destroy diagctl:install > /tmp/destroyed
      ! grep DIAGCTL_ENABLED /tmp/destroyed
      cmp config/puma.rb /tmp/puma.rb
      test ! -e config/initializers/diagctl.rb
      test ! -e config/diagctl.toml
      sed -i /diagctl/d Gemfile
      bundle install --quiet
      bin/rails runner 'puts "booted without diagctl"'
    SH
    assert_match(/^booted without diagctl$/, told.out)
    assert_match(/^booted, started=false$/, told.out)
  end

  def test_captures_have_the_release_and_the_rake_tasks_run_the_program
    told = rails(<<~SH, gems: %w[puma-plugin-diagctl])
      bin/rails generate diagctl:install
      echo 7c9e6679 > REVISION
      DIAGCTL_ENABLED=1 DIAGCTL_CONFIG=config/diagctl.toml bin/rails server -e production > /tmp/server 2>&1 &
      bundle exec diagctl request gc_stat --reason a-test --wait
      kill $!
      echo "release: $(bundle exec diagctl show --json latest | tr -d '\\n' | grep -o '"release": *"[^"]*"')"
      bin/rails -T diagctl
      bin/rails 'diagctl:list[-q]'
      bin/rails diagctl:doctor || echo "doctor: $?"
      DIAGCTL_CONFIG=/nowhere bin/rails diagctl:doctor || echo "broken: $?"
    SH
    assert_match(/^release: "release": *"7c9e6679"$/, told.out)
    assert_match(/^\d{8}T\d{9}Z-\h{8}$/, told.out)
    assert_match(%r{^(bin/)?rails diagctl:doctor .*\n(bin/)?rails diagctl:list}, told.out)
    assert_match(/^ok +config.rules/, told.out)
    assert_match(/^broken: 1$/, told.out)
  end

  # Two requests are in progress when the server is killed. The names of their actions are told, and nothing of the requests.
  def test_deaths_names_the_actions_in_progress
    told = rails(<<~'SH', gems: %w[puma-plugin-diagctl])
      bin/rails generate diagctl:install
      printf '%s\n' 'class ReportsController < ActionController::Base' '  def show = sleep' 'end' > app/controllers/reports_controller.rb
      printf '%s\n' 'Rails.application.routes.draw { get "/reports/:id", to: "reports#show" }' > config/routes.rb
      sed -i 's/^poll_interval.*/poll_interval = "1s"/' config/diagctl.toml
      export DIAGCTL_ENABLED=1 DIAGCTL_CONFIG=config/diagctl.toml
      bin/rails server -e production -p 3999 > /tmp/server 2>&1 &
      server=$!
      for i in $(seq 100); do curl -s -o /dev/null http://127.0.0.1:3999/ && break; sleep 0.3; done
      for id in 4711 4712; do curl -s "http://127.0.0.1:3999/reports/$id?token=secret" & done
      for i in $(seq 100); do grep -q 'request.running.ReportsController#show":2' /var/lib/diagctl/samples.jsonl && break; sleep 0.3; done
      kill -9 $server
      wait $server || true
      bundle exec diagctl deaths --json
      grep -c 'secret\|4711' /var/lib/diagctl/samples.jsonl || true
    SH
    assert_match(/"requests":\{"ReportsController#show":2\}/, told.out)
    assert_match(/^0$/, told.out)
  end

  private

  def image = "rails"

  def new_options = "--skip-webpack-install --skip-spring --skip-listen"

  def rails(script, gems:)
    gemfile = ["source \"https://rubygems.org\"", *(GEMFILE | gems).map { |name| "gem \"#{name}\"" }].join("\n")
    install = script.start_with?("bundle install") ? "" : "bundle install --quiet"
    result = @image.run("#{format(NEW, new_options)}\nprintf '%s\\n' '#{gemfile}' > Gemfile\n#{install}\n#{script}", ro: { "/srv/gems" => E2E::GemIndex.dir },
      env: { "RAILS_ENV" => "development" })
    assert result.ok?, result
    result
  end
end

# Rails 7.2 in Debian 13.
class Rails72Test < RailsTest
  private

  def image = "rails13"

  def new_options = "--skip-asset-pipeline --skip-dev-gems"
end
