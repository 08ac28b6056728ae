# frozen_string_literal: true

namespace :diagctl do
  # Arguments go on to the program: rake "diagctl:list[--since,2h]". The configuration of the application is used if the environment names
  # none.
  run = lambda do |*command|
    binary = Diagctl::Binary.new
    what, hint = binary.problem
    abort "diagctl: #{what}\n  hint: #{hint}" if what

    config = Rails.root.join("config/diagctl.toml")
    env = ENV["DIAGCTL_CONFIG"].to_s.empty? && config.file? ? { "DIAGCTL_CONFIG" => config.to_s } : {}
    system(env, binary.path, *command) || exit($?&.exitstatus || 1)
  end

  desc "Find what stops diagctl's captures or makes them dangerous"
  task(:doctor) { |_, arguments| run.call("doctor", *arguments.extras) }

  desc "List the captures of diagctl, newest first"
  task(:list) { |_, arguments| run.call("list", *arguments.extras) }
end
