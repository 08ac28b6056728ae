# frozen_string_literal: true

# Nothing runs at the exit of this Ruby.
require "minitest"
