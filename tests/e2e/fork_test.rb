# frozen_string_literal: true

require "socket"
require_relative "support/e2e"

# The dumping child shares nothing with its worker's clients, and outlives its worker.
class ForkTest < E2E::Case
  def test_client_sees_its_connection_close_during_a_dump
    server = puma
    server.get("/grow?mb=60")
    TCPSocket.open("127.0.0.1", server.port) do |client|
      client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
      assert_includes client.readpartial(4096), "200 OK"
      diagctl!("request", "heap_dump", "--reason", "a client is connected")
      during_a_dump do |dumper, put|
        assert_empty E2E::Processes.sockets(dumper), "the dumper holds sockets"
        assert_empty E2E::Processes.sockets(put), "put holds sockets"
        client.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert client.wait_readable(10), "no answer"
        assert Timeout.timeout(10) { client.read }, "no end of file while the dump runs"
        assert_empty captures, "the dump was over too early to prove anything"
      end
    end
    wait_for_captures(server)
  end

  def test_puma_restarts_on_its_port_during_a_dump_and_the_capture_completes
    [{ workers: 0 }, { workers: 2 }].each do |mode|
      server = puma(**mode)
      grown = server.get("/grow?mb=60")[/\d+$/]
      before = captures.size
      diagctl!("request", "heap_dump", "--pid", grown, "--reason", "a restart comes")
      again = nil
      during_a_dump do |dumper, _|
        server.stop
        again = puma(port: server.port, **mode)
        assert again.get("/")
        assert E2E::Processes.alive?(dumper), "the dumper did not outlive Puma"
      end
      id = wait_for_captures(again, before + 1).first.fetch("id")
      assert_heap_dump(id, strings: 60 * 1024)
      again.stop
    end
  end

  def test_worker_killed_right_after_the_fork_leaves_a_whole_capture
    server = puma(workers: 2)
    victim = server.get("/grow?mb=60")[/\d+$/].to_i
    diagctl!("request", "heap_dump", "threads", "--pid", victim, "--reason", "it is about to be killed")
    during_a_dump do |dumper, _|
      E2E::Processes.signal(:KILL, victim)
      wait_until("the worker is dead") { !E2E::Processes.alive?(victim) }
      assert E2E::Processes.alive?(dumper)
    end
    id = wait_for_captures(server).first.fetch("id")
    meta = meta(id)
    assert_equal victim, meta.fetch("pid")
    # With its parent dead, the child owns all of its pages, but none of them was copied.
    refute_includes meta.fetch("cost"), "copied_bytes"
    assert_operator meta.dig("cost", "dumper_peak_rss_bytes"), :>, 60 << 20
    assert_heap_dump(id, strings: 60 * 1024)
  end

  def test_dumper_is_the_first_to_be_killed_when_memory_runs_out
    server = puma
    server.get("/grow?mb=60")
    diagctl!("request", "heap_dump", "--reason", "look at the child")
    during_a_dump do |dumper, _|
      assert_equal 1000, File.read("/proc/#{dumper}/oom_score_adj").to_i
      assert_equal 19, File.read("/proc/#{dumper}/stat").rpartition(") ").last.split[16].to_i, "nice"
      assert_equal dumper, Process.getpgid(dumper)
    end
    wait_for_captures(server)
  end
end
