# frozen_string_literal: true

require_relative "../helper"

class ThreadStacksTest < Minitest::Test
  def test_what_a_thread_holds_in_local_variables_is_among_its_references
    Diagctl::Runtime.load
    ready = Queue.new
    held = nil
    thread = Thread.new do
      local = Object.new
      held = Fiddle.dlwrap(local)
      ready << true
      sleep
      local
    end
    ready.pop
    sleep 0.01 until thread.stop?
    stacks = Diagctl::ThreadStacks.collect([Thread.current, thread])
    assert_equal [Thread.current, thread], stacks.keys
    assert_includes stacks[thread].unpack("J*"), held
    assert_empty stacks[Thread.current], "its stack lives on in the child"
  ensure
    thread&.kill
  end

  # A block that captures a variable moves it to an environment, which Ruby shows only by a stand-in.
  def test_internal_objects_have_their_own_addresses
    Diagctl::Runtime.load
    references = ObjectSpace.reachable_objects_from(Thread.main)
    internal = references.grep(ObjectSpace::InternalObjectWrapper)
    refute_empty internal
    stand_ins = internal.map { |object| Fiddle.dlwrap(object) }
    known = ObjectSpace.dump_all(output: :string).scan(/^\{"address":"0x(\h+)", "type":"IMEMO"/).to_h { |(address)| [address.hex, true] }
    addresses = Diagctl::ThreadStacks.send(:references, Thread.main).unpack("J*")
    assert_empty addresses & stand_ins
    assert_operator addresses.count { |address| known[address] }, :>=, internal.size / 2
  end
end
