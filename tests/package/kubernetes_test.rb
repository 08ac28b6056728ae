# frozen_string_literal: true

require "shellwords"
require "yaml"
require_relative "support/image"
require_relative "support/gem_index"

# The manifests of packaging/kubernetes: valid, and what they say of a container is tried on real processes. There is no cluster: no
# kubelet, no container runtime, no seccomp profile.
class KubernetesTest < Minitest::Test
  DIR = File.join(E2E::ROOT, "packaging/kubernetes")
  VERSIONS = %w[1.29 1.37].freeze

  def setup
    @kube = E2E::Image.named("kube") or skip "no image: #{E2E::Image.why}"
  end

  def test_all_layouts_are_valid_for_old_and_new_versions
    %w[base sidecar ship].each do |layout|
      told = inside(@kube, <<~SH, ro: { "/kubernetes" => DIR })
        kubectl kustomize /kubernetes/#{layout} > /tmp/all.yaml
        kubernetes-validate --strict #{VERSIONS.map { |version| "-k #{version}" }.join(" ")} /tmp/all.yaml
        sed -i 's/readOnlyRootFilesystem/readOnlyRoot/' /tmp/all.yaml
        ! kubernetes-validate --strict -k #{VERSIONS.last} /tmp/all.yaml > /tmp/refused
      SH
      assert_equal VERSIONS.size * 2, told.out.scan(/INFO .* passed for resource/).size, told
    end
  end

  def test_the_overlay_of_the_documentation_names_the_image
    page = File.read(File.join(E2E::ROOT, "docs/kubernetes.md"))
    overlay = page[/```yaml\n(.*?)```/m, 1]
    told = inside(@kube, <<~SH, ro: { "/site/diagctl/packaging/kubernetes" => DIR }, env: { "OVERLAY" => overlay })
      mkdir /site/overlay
      printenv OVERLAY > /site/overlay/kustomization.yaml
      kubectl kustomize /site/overlay
    SH
    assert_includes told.out, "image: registry.example.com/shop:v7"
  end

  def test_the_configuration_is_valid_and_fits_the_volume
    file = File.join(DIR, "base/diagctl.toml")
    checked = E2E::Command.run(E2E::BIN, "config", "check", "--elsewhere", file, env: { "PATH" => "/usr/bin" })
    assert checked.ok?, checked
    volume = pod("base").fetch("volumes").find { |it| it["name"] == "diagnostics" }
    assert_equal ["2Gi", "1GiB"], [volume.dig("emptyDir", "sizeLimit"), File.read(file)[/max_use = "(.*)"/, 1]]
  end

  # Users, groups, capabilities, the read-only root, the volumes with the modes of an fsGroup, the memory limit, the environment and the
  # commands are those of the manifest.
  def test_the_containers_of_the_pod_capture_and_read
    image = E2E::Image.named("rails") or skip "no image: #{E2E::Image.why}"
    cgroup = E2E::Cgroup.with_memory(1 << 30) or skip "no memory cgroup can be made here: #{E2E::Cgroup.why}"
    spec = pod("sidecar")
    web, sidecar = %w[web diagctl].map { |name| spec.fetch("containers").find { |it| it["name"] == name } }
    assert_equal "1Gi", web.dig("resources", "limits", "memory")
    as = user(spec, web)
    shipper = pod("ship").fetch("containers").find { |it| it["name"] == "diagctl" }
    told = inside(image, <<~SH, ro: { "/srv/gems" => E2E::GemIndex.dir, "/diagctl.toml" => File.join(DIR, "base/diagctl.toml"), "/program" => E2E::BIN, "/shipper" => "#{E2E::BIN}-remote" })
      mkdir -p /app/config /diagnostics /etc/diagctl /sidecar/diagnostics /sidecar/proc
      cd /app
      bundle config set --global mirror.https://rubygems.org file:///srv/gems
      printf 'source "https://rubygems.org"\\ngem "puma-plugin-diagctl"\\n' > Gemfile
      bundle install --quiet
      echo 'run ->(_) { [200, {}, ["ok"]] }' > config.ru
      printf 'workers 2\\npreload_app!\\nbind "tcp://127.0.0.1:3000"\\nplugin :diagctl\\n' > config/puma.rb
      cp /diagctl.toml /etc/diagctl/
      cp /program /sidecar/diagctl
      cp /shipper /sidecar/diagctl-remote
      mkdir -p /sidecar/etc/diagctl /sidecar/dev
      mknod -m 666 /sidecar/dev/null c 1 3
      printf '[remote]\nurl = "file:///diagnostics/bucket"\n' | cat /diagctl.toml - > /sidecar/etc/diagctl/diagctl.toml
      mount -t tmpfs -o mode=2777,gid=#{spec.dig("securityContext", "fsGroup")} tmpfs /diagnostics
      mount -t tmpfs -o mode=1777 tmpfs /tmp
      mount --bind /diagnostics /sidecar/diagnostics
      mount -t proc proc /sidecar/proc
      mount -o remount,ro /
      ! touch /app/x 2>/dev/null
      #{cgroup.joining}
      #{in_sidecar(spec, sidecar, sidecar["command"])} > /tmp/events 2>&1 &
      #{in_web(web, as, web["command"])} > /tmp/web 2>&1 &
      #{in_web(web, as, %w[bundle exec diagctl request heap_dump --reason a-test --wait])}
      stat -c '%U %a' /diagnostics/store
      #{in_sidecar(spec, sidecar, %w[/diagctl list])}
      #{in_sidecar(spec, sidecar, %w[/diagctl verify --all])}
      #{in_sidecar(spec, sidecar, %w[/diagctl status])}
      #{in_web(web, as, %w[bundle exec diagctl doctor])}
      mkdir -m 2777 /diagnostics/bucket
      #{in_sidecar(spec, shipper, shipper["command"])} > /tmp/shipped 2>&1 &
      shipper=$!
      until ls /diagnostics/bucket/captures/*/*/*/meta.json > /dev/null; do sleep 0.2; done
      kill $shipper
      wait $shipper
      #{in_sidecar(spec, shipper, %w[/diagctl list --remote --report heap_dump])}
      cat /tmp/shipped
      cat /tmp/events
      curl -sS http://127.0.0.1:3000/
    SH
    assert_match(/captured .* \(puma worker-\d\)$/, told.err)
    assert_match(/^UNKNOWN 700$/, told.out)
    # In the store, and in the remote.
    assert_equal 2, told.out.scan(/asked-for.*heap_dump heap_summary$/).size, told
    assert_match(/1 capture: .* intact/, told.out)
    assert_match(/^\{.*"event":"published"/, told.out)
    assert_match(/^ok +cgroup +cgroup v[12], memory limit 1.00 GiB/, told.out)
    refute_match(/^FAIL/, told.out)
    assert_match(/ok\z/, told.out)
  ensure
    cgroup&.remove
  end

  private

  def inside(image, script, **options) = image.run(script, **options).tap { |result| assert result.ok?, result }

  # The specification of the pod, as kustomize renders it.
  def pod(layout)
    rendered = inside(@kube, "kubectl kustomize /kubernetes/#{layout}", ro: { "/kubernetes" => DIR }).out
    YAML.load_stream(rendered).find { |it| it["kind"] == "Deployment" }.dig("spec", "template", "spec")
  end

  def user(spec, container)
    context = spec.fetch("securityContext")
    limits = container.fetch("securityContext")
    assert_equal [true, false, true, ["ALL"]], [context["runAsNonRoot"], *limits.values_at("allowPrivilegeEscalation", "readOnlyRootFilesystem"),
                                                 limits.dig("capabilities", "drop")]
    ["setpriv", "--reuid=#{context["runAsUser"]}", "--regid=#{context["runAsGroup"]}", "--groups=#{context["fsGroup"]}", "--no-new-privs",
     "--bounding-set=-all", "--inh-caps=-all"]
  end

  def environment(container) = container.fetch("env").map { |it| "#{it["name"]}=#{it["value"]}" }

  def in_web(container, as, command)
    ["env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp", "BUNDLE_USER_CONFIG=/root/.bundle/config", *environment(container), *as, *command].shelljoin
  end

  # An image with nothing but the program.
  def in_sidecar(spec, container, command)
    user(spec, container)
    context = spec.fetch("securityContext")
    ["env", "-i", *environment(container), "setpriv", "--no-new-privs", "/usr/sbin/chroot", "--userspec=#{context["runAsUser"]}:#{context["runAsGroup"]}",
     "--groups=#{context["fsGroup"]}", "/sidecar", *command].shelljoin
  end
end
