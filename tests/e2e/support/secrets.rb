# frozen_string_literal: false

# Loaded by a process that is then dumped: hides secrets in every kind of object and place in which Ruby can hold a value. Each secret
# begins with SECRET_MARK. What is a name in code (a class, method, variable or file) is no value.
require "set"
require "stringio"
require "tempfile"
require "time"

SECRET_MARK = "s3cr3t".freeze
def secret(what) = +"#{SECRET_MARK}-#{what}-#{rand(1 << 60).to_s(36)}"
def number = 987_654_321_000 + rand(1000)

class Holder
  attr_accessor :a

  def initialize(value) = @a = value
  def self.hide(value) = @@hidden = value
  def ask(given = "s3cr3t-default-argument") = given
end
Pair = Struct.new(:x, :y)
Holder.hide(secret("class-variable"))
HIDDEN_CONSTANT = secret("constant")
$hidden_global = secret("global")
ENV["HIDDEN"] = secret("environment")
ARGV << secret("argument")
Thread.current[:hidden] = secret("fiber-local")
Thread.current.thread_variable_set(:hidden, secret("thread-local"))
Thread.current.name = secret("thread-name")[0, 60]
long = secret("shared") * 30
string_with_variable = "x".dup
string_with_variable.instance_variable_set(:@hidden, secret("generic-variable"))
raised = begin
  raise ArgumentError, secret("message")
rescue ArgumentError => e
  e
end
deep = Array.new(200) { |i| { secret("key-#{i}") => [secret("element-#{i}"), { hidden: secret("value-#{i}") }] } }
matched = secret("match").match(/s3cr3t-(?<what>\w+)/)
local = secret("closure")
deaf = Thread.new { (mine = secret("stack")) && sleep }
fiber = Fiber.new { (mine = secret("fiber")) && Fiber.yield(1) && mine }
fiber.resume
file = Tempfile.new(secret("file-name"))
anonymous = Class.new { define_method(:to_s) { "s3cr3t-literal-in-a-method" } }
HIDDEN = [
  secret("string"), secret("frozen").freeze, -secret("fstring"), secret("umlaut \u00e4"), secret("binary").b << "\xff\x00".b, secret("utf16").encode("UTF-16LE"),
  secret("broken") << "\xff", long, long[5..], long.dup, secret("symbol").to_sym, { secret("symbol-key").to_sym => 1 }, { secret("hash-key") => secret("hash-value") },
  Hash.new(secret("hash-default")), Hash.new { local }, {}.compare_by_identity.tap { |hash| hash[secret("identity")] = 1 }, [secret("array")] * 3, Set[secret("set")],
  Holder.new(secret("variable")), Pair.new(secret("member"), secret("member-2").to_sym), Regexp.new(secret("regexp")), matched, number, number * (10**60),
  number + 0.125, Rational(number, 7), Complex(number, 3), secret("range")..secret("range-end"), StringIO.new(secret("stringio")), file, raised, deep,
  proc { local }, lambda { |x = "s3cr3t-literal"| x }, method(:secret), binding, Time.at(number), [secret("enumerator")].each, [secret("lazy")].lazy.map(&:upcase),
  anonymous.new, ObjectSpace::WeakMap.new.tap { |map| map[local] = deep }, eval("-> { \"#{secret('evaluated')}\" }"), fiber, deaf, string_with_variable,
  Random.new(number), Comparable.instance_method(:clamp), Encoding::Converter.new("UTF-8", "UTF-16"), IO.pipe, Marshal.dump(secret("marshal")),
  Object.new.tap { |object| object.define_singleton_method(:told) { local } }, RubyVM::InstructionSequence.compile("x = 's3cr3t-compiled'")
].freeze
