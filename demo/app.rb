# frozen_string_literal: true

# A web application with a leak on demand: GET /grow?mb=20 keeps 20 MB forever, like an unbounded cache. Every answer ends with
# the pid of the worker that gave it. The end-to-end tests use it too.
class GrowingApp
  Session = Struct.new(:id, :user, :payload)

  def initialize
    @sessions = []
    @padding = "lorem ipsum dolor sit amet " * 34
  end

  def call(env)
    body = env["PATH_INFO"] == "/grow" ? grow(env["QUERY_STRING"][/mb=(\d+)/, 1].to_i) : "ok"
    [200, { "content-type" => "text/plain" }, ["#{body} #{Process.pid}\n"]]
  end

  private

  # Creates many small objects of about one kilobyte each, which is the typical leak in Ruby and shows in a heap dump.
  def grow(megabytes)
    (megabytes * 1024).times do |i|
      @sessions << Session.new(@sessions.size, "user-#{i % 100}", "#{i} #{@padding}")
    end
    "#{@sessions.size} sessions kept in"
  end
end
