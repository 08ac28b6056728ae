# frozen_string_literal: true

require "puma/plugin"
require "diagctl"
require "diagctl/puma"

# `plugin :diagctl` in config/puma.rb. Wiring only; see Diagctl::Puma.
#
# Defines `start`, and must not define `config`: with a plugin that responds to `config`, every Puma from 5.6 to 8.0 drops the first
# option of the user's puma.rb (Puma::DSL#_offer_plugins).
Puma::Plugin.create do
  def start(launcher)
    Diagctl::Puma.install(launcher)
  end
end
