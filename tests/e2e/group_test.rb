# frozen_string_literal: true

require_relative "support/e2e"

# Members of the store's group read it, and do what the operator allows beyond that: they leave orders, and the workers carry
# them out.
class GroupTest < E2E::Case
  GROUP = 4242
  OTHER_GROUP = 4243
  OWNER, MEMBER, OTHER_MEMBER = 65_534, 1234, 1235

  def setup
    super
    skip "only root can be several users" unless Process.euid.zero?

    @binary = "#{@root}/diagctl"
    FileUtils.cp(E2E::BIN, @binary)
    FileUtils.mkdir(@store, mode: 0o700)
    File.chown(OWNER, nil, @store)
    group_may("request", "pin")
  end

  def test_a_member_requests_waits_and_pins
    worker = start_worker
    asked = member("request", "gc_stat", "--reason", "a member asks", "--wait", deadline: 60)
    assert asked.ok?, asked
    id = asked.out.strip
    assert_equal "requested by uid #{MEMBER}: a member asks", meta(id).dig("trigger", "reason")
    pinned = member("pin", id)
    assert pinned.ok?, pinned
    assert_match(/asked to pin #{id}: the next poll .*200ms/, pinned.out)
    wait_until("the capture is pinned", tell: worker.method(:log)) { captures.first["pinned"] }
    assert member("unpin", "latest").ok?
    wait_until("the capture is not pinned") { !captures.first["pinned"] }
    assert_equal ["pinned by uid #{MEMBER}", "unpinned by uid #{MEMBER}"],
                 events.filter_map { |event| event.values_at("event", "reason").join(" ") if event["event"].end_with?("pinned") }
  end

  def test_a_request_that_nobody_polls_for_is_listed_and_can_be_cancelled_by_its_sender
    worker = start_worker
    E2E::Processes.signal(:STOP, worker.pid)
    asked = member("request", "gc_stat", "--reason", "later")
    assert asked.ok?, asked
    id = asked.out.strip
    assert_includes member("request", "--list").out, id
    assert_equal 1, member("request", "--cancel", id, uid: OTHER_MEMBER).status
    cancelled = member("request", "--cancel", id)
    assert cancelled.ok?, cancelled
    assert_empty Dir.children("#{@store}/inbox")
  end

  def test_a_member_cancels_only_his_own_requests
    start_worker
    diagctl!("pause")
    id = member("request", "gc_stat", "--reason", "mine").out.strip
    wait_until("the request is filed") { File.exist?("#{@store}/requests/#{id}.json") }
    member("request", "--cancel", id, uid: OTHER_MEMBER)
    wait_until("it is refused") { events.any? { |event| event["event"] == "order_refused" } }
    assert_path_exists "#{@store}/requests/#{id}.json"
    member("request", "--cancel", id)
    wait_until("it is cancelled") { !File.exist?("#{@store}/requests/#{id}.json") }
  end

  def test_what_is_not_allowed_is_refused_with_a_hint_and_the_inbox_closes
    group_may
    start_worker
    refused = member("request", "gc_stat", "--reason", "x")
    assert_equal 1, refused.status, refused
    assert_match(/group_may = \["request"\]/, refused.err)
    refute_path_exists "#{@store}/inbox"
    group_may("pin")
    wait_until("the inbox opens") { File.exist?("#{@store}/inbox") && File.stat("#{@store}/inbox").mode & 0o7777 == 0o3770 }
    assert_match(/group_may = \["request"\]/, member("request", "gc_stat", "--reason", "x").err)
    # A member with a configuration of his own.
    File.write("#{@root}/own.toml", "group = \"#{GROUP}\"\ngroup_may = [\"request\"]\n")
    assert member("--config", "#{@root}/own.toml", "--dir", @store, "request", "gc_stat", "--reason", "x").ok?
    wait_until("the worker refuses it") { events.any? { |event| event["reason"].include?('group_may does not contain "request"') } }
    group_may
    wait_until("the inbox closes") { File.stat("#{@store}/inbox").mode & 0o7777 == 0o2750 }
  end

  def test_a_store_that_is_older_than_the_group_is_shared_with_it
    configure(rule("asked", "on_demand = {}", %w[gc_stat]))
    File.chmod(0o644, config_path)
    worker = start_worker
    diagctl!("request", "gc_stat", "--reason", "before", "--wait")
    id = captures.first.fetch("id")
    refute member("list").ok?
    group_may("request")
    wait_until("the store is shared", tell: worker.method(:log)) { File.stat(@store).mode & 0o7777 == 0o2750 }
    listed = member("list", "--json")
    assert listed.ok?, listed
    assert_includes listed.out, id
    assert_includes member("fetch", "#{id}:gc_stat", "-o", "-").out, "heap_live_slots"
    %w[lease.lock state.lock].each { |name| assert_equal 0o600, File.stat("#{@store}/#{name}").mode & 0o777 }
    assert member("request", "gc_stat", "--reason", "after", "--wait", deadline: 60).ok?
  end

  def test_a_store_follows_when_the_operator_names_another_group
    worker = start_worker
    diagctl!("request", "gc_stat", "--reason", "before", "--wait")
    id = captures.first.fetch("id")
    assert member("list").ok?
    configure(rule("asked", "on_demand = {}", %w[gc_stat]), head: %(group = "#{OTHER_GROUP}"\ngroup_may = ["request"]))
    wait_until("the store is shared with the other group", tell: worker.method(:log)) do
      stat = File.stat(@store)
      [stat.gid, stat.mode & 0o7777] == [OTHER_GROUP, 0o2750]
    end
    refused = member("list")
    refute refused.ok?, refused
    listed = member("list", "--json", group: OTHER_GROUP)
    assert_includes listed.out, id, listed
    assert_includes member("fetch", "#{id}:gc_stat", "-o", "-", group: OTHER_GROUP).out, "heap_live_slots"
    assert member("request", "gc_stat", "--reason", "after", "--wait", group: OTHER_GROUP, deadline: 60).ok?
    others = Dir.glob("#{@store}/**/*", File::FNM_DOTMATCH).reject { |path| %w[lease.lock state.lock].include?(File.basename(path)) }
    assert_empty others.reject { |path| File.lstat(path).gid == OTHER_GROUP }
    # Once.
    changed = -> { File.stat("#{@store}/reports/#{id}/meta.json").ctime }
    assert_equal(changed.call.tap { diagctl!("request", "gc_stat", "--reason", "later", "--wait") }, changed.call)
  end

  # Each poll takes them out in bulk, and tells about them once.
  def test_a_flood_of_orders_pushes_out_no_event_and_delays_nobody_for_long
    worker = start_worker
    diagctl!("request", "gc_stat", "--reason", "before", "--wait")
    flood = "cd #{@store}/inbox && i=0; while [ $i -lt 3000 ]; do echo '{}' > $i.json; i=$((i + 1)); done"
    assert E2E::Command.run(*setpriv(MEMBER, MEMBER, "--groups=#{GROUP}"), "sh", "-c", flood, env: env).ok?
    asked = member("request", "gc_stat", "--reason", "in the flood", "--wait", uid: OTHER_MEMBER, deadline: 60)
    assert asked.ok?, asked
    wait_until("the inbox is empty", tell: worker.method(:log)) { Dir.empty?("#{@store}/inbox") }
    assert_equal 2, events.count { |event| event["event"] == "published" }
    assert_operator events.count { |event| event["event"] == "order_refused" }, :<, 100
  end

  def test_nobody_else_gets_in
    start_worker
    stranger = setpriv(4321, 4321, "--clear-groups") + [@binary, "request", "gc_stat", "--reason", "x"]
    refused = E2E::Command.run(*stranger, env: env)
    assert_equal 1, refused.status, refused
    refute_includes refused.err, "group_may"
  end

  private

  def group_may(*rights)
    configure(rule("asked", "on_demand = {}", %w[gc_stat]), head: "group = \"#{GROUP}\"\ngroup_may = #{rights.inspect}")
    File.chmod(0o644, config_path)
  end

  def setpriv(uid, gid, *groups) = ["setpriv", "--reuid=#{uid}", "--regid=#{gid}", *groups]

  # Other users may have no access to the working copy.
  def start_worker
    FileUtils.cp_r(E2E::PumaServer::LOAD_PATH.split(":").first, "#{@root}/lib")
    start_script(wrapper: setpriv(OWNER, OWNER, "--groups=#{GROUP},#{OTHER_GROUP}") + ["env", "RUBYLIB=#{@root}/lib", "DIAGCTL_BIN=#{@binary}"])
  end

  def member(*argv, uid: MEMBER, group: GROUP, **options)
    E2E::Command.run(*setpriv(uid, uid, "--groups=#{group}"), @binary, *argv, env: env, **options)
  end

  def events = diagctl!("events", "--json").json.fetch("events")
end
