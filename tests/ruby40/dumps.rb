# frozen_string_literal: true

# Runs in Ruby 4.0 as WebAssembly: writes heap dumps to /out in the way that the gem's report does.
$LOAD_PATH.unshift("/checkout/ruby/diagctl/lib", "/checkout/tests/ruby40/stubs")
require "diagctl"
Diagctl::Runtime.load
ObjectSpace.trace_object_allocations_start
Point = Struct.new(:x, :y)
Value = Data.define(:name)
odd = Class.new { def self.name = "odd\"name\\" }
KEPT = [
  Array.new(20_000) { |i| "text #{i} \"quoted\" \\ \u00e4\u{1f600}\n" }, Array.new(300) { |i| Random.new(i).bytes(i) },
  "caf\xE9", "\u00e4".encode("UTF-16LE"), "\x00\x7f\e", "frozen".freeze, :"a \"symbol\"", 2**200, 1.5e300, 3r, 4i,
  Array.new(100) { |i| Point.new(i, i.to_s) }, Array.new(100) { |i| Value.new(name: "n#{i}") }, odd.new, odd, { 1 => { 2 => [3] } },
  Array.new(50) { |i| Object.new.tap { |object| (0..i).each { |n| object.instance_variable_set(:"@v#{n}", n) } } },
  eval("-> { 1 }", binding, "a \"file\" \\ of a name.rb"), /re"g/, (1..), Comparable, $stdout, method(:puts), Mutex.new
].freeze
ObjectSpace.trace_object_allocations_stop
report = Diagctl::Reports.new(Diagctl.configuration).fetch("heap_dump")
{ "plain" => {}, "full" => { "full" => true } }.each do |name, options|
  File.open("/out/#{name}.json", "wb") { |file| report.call(file, options) }
end
