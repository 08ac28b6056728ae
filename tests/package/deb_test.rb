# frozen_string_literal: true

require_relative "support/image"

# The Debian package, installed, upgraded and purged in a Debian.
class DebTest < Minitest::Test
  def self.package
    @package ||= begin
      built = E2E::Command.run(File.join(E2E::ROOT, "packaging/deb"), env: ENV.to_h.slice("PATH", "HOME", "CARGO_TARGET_DIR"), deadline: 900)
      raise built.to_s unless built.ok?

      built.out.lines.grep(/_#{IO.popen(%w[dpkg --print-architecture], &:read).strip}\.deb$/).first.strip
    end
  end

  def setup
    @image = E2E::Image.named(image) or skip "no image: #{E2E::Image.why}"
  end

  def test_lintian_has_no_error_and_no_warning
    linted = inside("lintian --no-cfg --allow-root --fail-on error,warning /package.deb")
    assert_empty linted.out, linted
  end

  def test_everything_is_installed_and_works
    told = inside(<<~SH)
      dpkg -i /package.deb
      diagctl --version
      for page in diagctl diagctl-list diagctl-heap-top diagctl-remote; do man --warnings -E UTF-8 -l /usr/share/man/man1/$page.1.gz 2>&1 >/dev/null | tee -a /tmp/warnings; done
      test ! -s /tmp/warnings
      bash -c '. /usr/share/bash-completion/completions/diagctl; COMP_WORDS=(diagctl req); COMP_CWORD=1; _diagctl diagctl req diagctl; test "${COMPREPLY[*]}" = request'
      zsh -c 'autoload -U compinit; compinit -D; whence -w _diagctl; test "$_comps[diagctl]" = _diagctl'
      fish -c 'complete -C"diagctl req"' | grep -q ^request
      diagctl config check
      mkdir -p /etc/systemd/system/puma.service.d
      printf '[Service]\\nExecStart=/bin/true\\nUser=games\\n' > /etc/systemd/system/puma.service
      cp /usr/share/doc/diagctl/examples/puma.service.d-diagctl.conf /etc/systemd/system/puma.service.d/diagctl.conf
      systemd-analyze verify puma.service /lib/systemd/system/diagctl-gc.service /lib/systemd/system/diagctl-doctor.service diagctl-ship@games.service /lib/systemd/system/diagctl-*.timer 2>&1 | grep -E 'diagctl|puma' && exit 1
      sed s/deploy/games/g /usr/share/doc/diagctl/examples/tmpfiles.conf > /etc/tmpfiles.d/diagctl.conf
      systemd-tmpfiles --create diagctl.conf
      test "$(stat -c '%U %a' /var/lib/diagctl)" = 'games 700'
      DIAGCTL_ENABLED=1 setpriv --reuid=games --regid=games --clear-groups diagctl run --report hello -- echo hi
      diagctl verify --all
      diagctl doctor
      diagctl gc
      echo 'remote = { url = "file:///srv/bucket" }' > /tmp/remote.toml
      install -d -o games /srv/bucket
      setpriv --reuid=games --regid=games --clear-groups diagctl --config /tmp/remote.toml ship
      diagctl --config /tmp/remote.toml list --remote
    SH
    assert_match(/^diagctl \d/, told.out)
    assert_match(/OK: .*diagctl.toml, 1 rule$/, told.out)
    assert_match(/^2\S+-\h{8} .*\bhello *$/, told.out, told)
  end

  # As people upgrade and remove it: with a configuration of their own, and a timer switched on.
  def test_an_upgrade_keeps_the_configuration_and_a_purge_leaves_only_the_captures
    inside(<<~SH)
      find /etc /usr /lib /var/lib/systemd -xdev | sort > /tmp/before
      dpkg -i /package.deb
      diagctl init
      systemctl enable diagctl-gc.timer
      mkdir -m 700 /var/lib/diagctl
      DIAGCTL_ENABLED=1 diagctl run --report hello -- echo hi
      sha256sum /etc/diagctl/diagctl.toml > /tmp/sum

      dpkg-deb -R /package.deb /tmp/next
      sed -i 's/^Version: .*/Version: 999-1/' /tmp/next/DEBIAN/control
      echo '# a line of the next version' >> /tmp/next/etc/diagctl/diagctl.toml
      dpkg-deb -b /tmp/next /tmp/next.deb
      dpkg -i --force-confold /tmp/next.deb
      sha256sum -c /tmp/sum
      test -L /etc/systemd/system/timers.target.wants/diagctl-gc.timer
      diagctl list -q | grep .

      dpkg --remove diagctl
      test ! -e /usr/bin/diagctl
      sha256sum -c /tmp/sum
      dpkg --purge diagctl
      find /etc /usr /lib /var/lib/systemd -xdev | sort > /tmp/after
      diff /tmp/before /tmp/after
      test -d /var/lib/diagctl/reports
    SH
  end

  private

  def image = "deb"

  def inside(script)
    @image.run(script, ro: { "/package.deb" => self.class.package }).tap { |result| assert result.ok?, result }
  end
end

# The same in Debian 13.
class Deb13Test < DebTest
  private

  def image = "deb13"
end
