# frozen_string_literal: true

require "fileutils"
require "json"
require "open3"
require "rbconfig"
require "socket"
require "tmpdir"
require_relative "machine"

# A Puma with the plugin and workers of a given size, and an interface to the worker that dumps. Subclasses choose the
# application: #write_application and, unless it is a plain Rack application, #command and #directory.
class PumaServer
  BOOT = 240
  SUPPORT = __dir__
  CONFIGURATION = <<~TOML
    poll_interval = "200ms"
    [guards]
    min_free_disk = "1%"
    memory_headroom = 0.1
    [limits]
    budget_hour = 1000000
    budget_day = 1000000
    [retention]
    keep_free = "1%"
    max_use = "20GiB"
  TOML

  attr_reader :port

  def self.open(...)
    Dir.mktmpdir("diagctl-bench-") do |dir|
      server = new(dir, ...)
      begin
        server.start
        yield server
      ensure
        server.stop
      end
    end
  end

  # size: RSS of a worker, in GB. wrapper: a command that execs Puma, as another user.
  def initialize(dir, size, workers, wrapper)
    @dir = dir
    @workers = workers
    @wrapper = wrapper
    @log = File.join(dir, "puma.log")
    @control = File.join(dir, "data", "control")
    @env = { "DIAGCTL_BIN" => File.join(dir, "diagctl"), "DIAGCTL_CONFIG" => File.join(dir, "diagctl.toml"), "DIAGCTL_ENABLED" => "1",
             "DIAGCTL_DIR" => File.join(dir, "data", "store"), "PATH" => ENV.fetch("PATH"), "LANG" => "C.UTF-8" }
    lay_out((size * 1000 * 1.1).round) # nine tenths of which show up as RSS
  end

  def start
    @pid = Process.spawn(@env, *@wrapper, *command, "-C", File.join(@dir, "puma.rb"), chdir: directory, in: File::NULL,
                         %i[out err] => [@log, "w"], unsetenv_others: true, pgroup: true)
    limit = now + BOOT
    until serving?
      abort "Puma does not serve:\n#{File.read(@log)}" if now > limit || Process.wait(@pid, Process::WNOHANG)

      sleep 0.2
    end
  end

  def stop
    Process.kill(:TERM, @pid)
    Process.wait(@pid)
  rescue Errno::ESRCH, Errno::ECHILD
    nil
  end

  def ask(*words)
    answer = UNIXSocket.open(@control) { |socket| socket.puts(words.join(" ")) || JSON.parse(socket.read) }
    answer["error"] ? abort("the worker says #{answer["error"]}") : answer
  end

  # Returns when the dump is over: the meta.json of a capture, or nil for the other ways.
  def dump(way, seconds)
    return sleep(seconds) && nil if way == :none
    return capture if way == :diagctl
    return ask("held", @capturing) && nil if way == :fork
    return compute(@capturing) if way == :busy
    return fork_and_compute(@capturing) if way == :both

    ask(way, path = File.join(@dir, "data", "dump"))
    File.unlink(path)
    nil
  end

  # Sets options of a report for the captures to come.
  def configure(report, options) = write("diagctl.toml", "#{CONFIGURATION}[reports.#{report}]\n#{options}\n")

  private

  def command = [RbConfig.ruby, Gem.bin_path("puma", "puma")]

  def directory = @dir

  # Additional lines for puma.rb.
  def settings = ""

  def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

  # Copies everything to a directory that any user can read, because `nobody` may have no access to the checkout.
  def lay_out(megabytes)
    File.chmod(0o755, @dir)
    Dir.mkdir(File.join(@dir, "data"))
    File.chmod(0o777, File.join(@dir, "data"))
    FileUtils.cp(Bench::BINARY, File.join(@dir, "diagctl"))
    FileUtils.cp_r(File.expand_path("../../ruby", SUPPORT), @dir)
    FileUtils.cp(File.join(SUPPORT, "bloated_app.rb"), @dir)
    write_application(megabytes)
    write("puma.rb", <<~RUBY)
      workers #{@workers}
      threads 3, 3
      worker_timeout 600
      environment "production"
      bind "tcp://127.0.0.1:0"
      plugin :diagctl
      #{settings}
    RUBY
    write("diagctl.toml", CONFIGURATION)
  end

  def write(name, content) = File.write(File.join(@dir, name), content)

  def serving?
    return false unless File.socket?(@control) && (@port = File.read(@log)[%r{Listening on http://127\.0\.0\.1:(\d+)}, 1]&.to_i)

    Dir.glob("#{@env.fetch("DIAGCTL_DIR")}/samples/*").size >= @workers
  end

  def fork_and_compute(seconds)
    computing = Thread.new { compute(seconds) }
    ask("held", seconds)
    computing.join
    nil
  end

  # Uses a CPU as much as a dump does, without affecting the worker.
  def compute(seconds)
    system("timeout", seconds.to_s, "nice", "-n", "19", "sha256sum", "/dev/zero")
    nil
  end

  # Runs as the store's owner, whose identity diagctl takes.
  def capture
    from = now
    @worker ||= ask("rss").fetch("pid").to_s
    out, err, status = Open3.capture3(@env, @env["DIAGCTL_BIN"], "request", "heap_dump", "gc_stat", "threads", "--pid", @worker,
                                      "--reason", "benchmark", "--wait", unsetenv_others: true)
    abort "no capture: #{out}#{err}\n#{File.read(@log)}" unless status.success?
    @capturing = now - from
    JSON.parse(File.read(File.join(@env["DIAGCTL_DIR"], "reports", out.strip, "meta.json")))
  end
end

# An application that answers in a millisecond, so that every pause shows.
class BloatedServer < PumaServer
  TITLE = "a Rack application that answers in a millisecond"
  RESULT = "capture.md"
  RATE = 100 # requests a second
  PAGE = "/"
  ANSWER = "60 \\d+\\n\\z"
  NOBODY = %w[setpriv --reuid=65534 --regid=65534 --clear-groups].freeze
  USERS = (Process.uid.zero? ? { "nobody" => NOBODY, "root" => [] } : { `id -un`.strip => [] }).freeze

  private

  def write_application(megabytes)
    @env["RUBYLIB"] = "#{@dir}/ruby/diagctl/lib:#{@dir}/ruby/puma-plugin/lib"
    write("config.ru", "require_relative 'bloated_app'\napp = BloatedApp.new(#{megabytes})\napp.listen(#{@control.inspect})\nrun app\n")
  end
end

# Debian's Redmine, in an image of the matrix: a Rails application of some size, with its own bundle. The same ballast makes it
# grow as in the other application.
class RedmineServer < PumaServer
  TITLE = "Debian's Redmine, its list of projects"
  RESULT = "redmine.md"
  RATE = 20
  PAGE = "/projects"
  ANSWER = "<title>Projects - Redmine</title>"
  USERS = { "www-data" => %w[setpriv --reuid=www-data --regid=www-data --init-groups].freeze }.freeze
  APPLICATION = "/usr/share/redmine"
  OWN_MEGABYTES = 200

  private

  def command = %w[bundle exec puma]

  def directory = APPLICATION

  def settings = "rackup #{File.join(@dir, "config.ru").inspect}"

  def write_application(megabytes)
    @env.update("RAILS_ENV" => "production", "HOME" => File.join(@dir, "data"))
    File.write(File.join(APPLICATION, "Gemfile.local"), <<~RUBY)
      gem "puma"
      gem "diagctl", path: "#{@dir}/ruby/diagctl"
      gem "puma-plugin-diagctl", path: "#{@dir}/ruby/puma-plugin"
    RUBY
    write("config.ru", <<~RUBY)
      require "#{APPLICATION}/config/environment"
      require_relative "bloated_app"
      BALLAST = BloatedApp.new(#{[megabytes - OWN_MEGABYTES, 1].max})
      BALLAST.listen(#{@control.inspect})
      run Rails.application
    RUBY
  end
end
