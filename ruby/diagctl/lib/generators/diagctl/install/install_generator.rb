# frozen_string_literal: true

require "rails/generators/base"

module Diagctl
  module Generators
    # rails generate diagctl:install
    class InstallGenerator < ::Rails::Generators::Base
      source_root File.expand_path("templates", __dir__)
      desc "Connects Puma and Sidekiq to diagctl: a line of config/puma.rb, an initializer, and a commented configuration."

      PLUGIN = "plugin :diagctl"
      # As appended; `rails destroy` takes it away again.
      LINES = "\n# Workers make their own diagnostic reports. See config/diagctl.toml.\n#{PLUGIN}\n"

      def add_the_plugin_to_puma
        return unless gem?("puma-plugin-diagctl")

        path = "config/puma.rb"
        return create_file(path, "#{PLUGIN}\n") unless File.exist?(File.join(destination_root, path))
        return if behavior == :invoke && File.read(File.join(destination_root, path)).match?(/^\s*plugin[ (]+(:|["'])diagctl\b/)

        append_to_file path, LINES
      end

      def create_the_initializer
        @sidekiq = gem?("sidekiq-diagctl")
        template "initializer.rb.tt", "config/initializers/diagctl.rb"
      end

      def copy_the_configuration
        copy_file "diagctl.toml", "config/diagctl.toml"
      end

      def say_what_is_next
        return if behavior == :revoke

        say <<~TEXT

          Next, in the environment of the workers, and restart them:
            DIAGCTL_ENABLED=1 DIAGCTL_CONFIG=#{File.join(destination_root, "config/diagctl.toml")}
          Their user must own the store, /var/lib/diagctl unless config/diagctl.toml or DIAGCTL_DIR names another. Then:
            bundle exec diagctl doctor
            bundle exec diagctl request heap_dump smaps gc_stat --reason "first try" --wait
            bundle exec diagctl diagnose latest
        TEXT
      end

      private

      def gem?(name) = Gem.loaded_specs.key?(name)
    end
  end
end
