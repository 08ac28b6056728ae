# frozen_string_literal: true

require_relative "../reporting"

class MallocInfoTest < Minitest::Test
  include Reporting

  def test_it_is_the_xml_of_glibc
    skip "no glibc" unless Diagctl::Libc.symbol("gnu_get_libc_version")

    assert_match(/\A<malloc version="1">.*<\/malloc>\s*\z/m, report("malloc_info"))
  end
end
