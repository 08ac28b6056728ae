# frozen_string_literal: false

# Loaded by a process that is then dumped: hides secrets in every kind of object and place in which Ruby can hold a value. Each secret
# begins with SECRET_MARK. What is a name in code (a class, method, variable or file) is no value. Allocations are traced, so that every
# object also has a file, a line and a method.
require "delegate"
require "objspace"
require "ostruct"
require "set"
require "stringio"
require "tempfile"
require "time"

SECRET_MARK = "s3cr3t".freeze
def secret(what) = +"#{SECRET_MARK}-#{what}-#{rand(1 << 60).to_s(36)}"
def number = 987_654_321_000 + rand(1000)

ObjectSpace.trace_object_allocations_start

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
$0 = secret("title")
$PROGRAM_NAME.dup
Holder.instance_variable_set(:@hidden, secret("variable-of-a-class"))
Holder.singleton_class.instance_variable_set(:@hidden, secret("variable-of-a-singleton"))
Thread.current[secret("fiber-local-name").to_sym] = Object.new
Thread.current.thread_variable_set(secret("thread-local-name").to_sym, Object.new)
named = Thread.new { Thread.current[secret("name-in-a-thread").to_sym] = [Thread.current.name = secret("name")]; sleep }
dynamic = Class.new { const_set(:HIDDEN, secret("constant-of-an-anonymous-class")) }
dynamic.class_variable_set(:@@hidden, secret("class-variable-of-an-anonymous-class"))
caused = begin
  begin
    raise secret("cause")
  rescue StandardError
    raise KeyError.new(secret("key-error"), receiver: { secret("receiver") => 1 }, key: secret("missing"))
  end
rescue KeyError => e
  e
end
refined = Module.new { refine(String) { const_set(:HIDDEN, secret("refinement")); define_method(:told) { local } } }
generic = [[], {}, 2**90, 1..2, /x/, "y".match(/y/), secret("with-a-variable").to_sym, proc {}].reject(&:frozen?).each do |object|
  object.instance_variable_set(:@hidden, secret("generic-variable-of-#{object.class}"))
end
queue = Queue.new.tap { |it| it << secret("queue") }
sized = SizedQueue.new(9).tap { |it| it << secret("sized-queue") }
tracer = TracePoint.new(:raise) { local }
external = [secret("external-enumerator")].each.tap(&:next)
yielder = Enumerator.new { |y| y << secret("yielder"); y << 2 }.tap(&:next)
produced = Enumerator.produce(secret("producer")) { |last| last + "x" }.tap(&:next)
NEWER = [
  ("3.2" <= RUBY_VERSION ? Data.define(:x, :y).new(x: secret("data"), y: { secret("data-key") => 1 }) : nil),
  ("3.2" <= RUBY_VERSION ? (Fiber[secret("storage-name").to_sym] = secret("storage")) : nil),
  ("3.2" <= RUBY_VERSION ? Fiber.new(storage: { hidden: secret("storage-of-a-fiber") }) { Fiber.yield }.tap(&:resume) : nil),
  ("3.3" <= RUBY_VERSION ? ObjectSpace::WeakKeyMap.new.tap { |map| map[HIDDEN_CONSTANT] = secret("weak-value") } : nil),
  # A class can have any text as its name until it is a constant. Names below it begin with that text.
  ("3.3" <= RUBY_VERSION ? Class.new { set_temporary_name("s3cr3t-name"); const_set(:Inner, Class.new) }.tap { |it| HELD = [it.new, it::Inner.new] } : nil),
  ("3.3" <= RUBY_VERSION ? Module.new.tap { |it| it.set_temporary_name("S3cr3t Name") } : nil)
].freeze
HIDDEN = [
  named, dynamic, caused, refined, generic, queue, sized, tracer, external, yielder, produced, OpenStruct.new(secret("member").to_sym => secret("member-value")),
  SimpleDelegator.new(secret("delegate")), (secret("arithmetic").length..number).step(number), [1].each + [secret("chain")], method(:secret).curry, secret("to-proc").to_sym.to_proc,
  Holder.new(1).method(:ask).unbind, Struct.new(:a, keyword_init: true).new(a: secret("keyword")), Time.new(2020, 1, 1, 0, 0, 0, "+09:37"), IO.popen(["true", secret("command")]),
  Dir.new(Dir.mktmpdir(secret("directory"))), Process.clock_gettime(Process::CLOCK_REALTIME, :nanosecond) * 0 + number, Ractor.make_shareable([secret("shareable")]),
  Hash.new { |hash, key| hash[key] = secret("by-default") }.tap { |hash| hash[secret("asked")] }, { nil => secret("nil-key"), 1.5 => secret("float-key"), [secret("array-key")] => 1 },
  Random.new_seed, secret("interned").freeze.then { |it| { it => it.to_sym } }, Encoding::UndefinedConversionError.new(secret("conversion")), $stdin, ENV.to_h, ARGV.dup,
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
