# frozen_string_literal: true

require "puma/plugin"
require "diagctl"
require "diagctl/puma"

# `plugin :diagctl` in config/puma.rb. Wiring only; see Diagctl::Puma.
#
# It has a `start` and must not have a `config`: every Puma from 5.6 to 8.0 takes a plugin that responds to `config`
# as a reason to drop the first option of the user's puma.rb (Puma::DSL#_offer_plugins).
Puma::Plugin.create do
  def start(launcher)
    Diagctl::Puma.install(launcher)
  end
end
