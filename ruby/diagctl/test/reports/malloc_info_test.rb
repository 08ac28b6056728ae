# frozen_string_literal: true

require_relative "../reporting"

class MallocInfoTest < Minitest::Test
  include Reporting

  def test_it_is_the_xml_of_glibc
    skip "no glibc" unless Diagctl::Libc.symbol("gnu_get_libc_version")

    assert_match(/\A<malloc version="1">.*<\/malloc>\s*\z/m, report("malloc_info"))
  end

  # glibc's arenas are almost empty then, and would be taken for the process's memory.
  { "jemalloc" => "libjemalloc.so.2", "tcmalloc" => "libtcmalloc_minimal.so.4", "mimalloc" => "libmimalloc.so*" }.each do |name, file|
    define_method(:"test_it_knows_nothing_of_#{name}_and_says_so") do
      path = Dir["{/usr/lib/*,#{ENV.fetch("DIAGCTL_TEST_ALLOCATORS", "/usr/lib")}}/#{file}"].first or skip "#{name} is not installed"
      out, = ruby(<<~RUBY, env: { "LD_PRELOAD" => path })
        Diagctl::Runtime.load
        begin
          Diagctl::Reports::MallocInfo.new.call($stdout, {})
        rescue Diagctl::Unavailable => e
          puts e.message
        end
      RUBY
      assert_match(/this process uses #{name}.* instead of glibc's allocator/, out)
    end
  end
end
