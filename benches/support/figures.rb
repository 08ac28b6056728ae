# frozen_string_literal: true

# The figures of README.md, computed from the results of the benchmarks, and one page of all results. docs_test holds README.md and
# the page to the results.
class Figures
  RESULTS = File.expand_path("../results", __dir__)
  PAGE = "README.md"
  ORDER = %w[redmine.md capture.md idle.md requests.md heap_dump.md heap_dump_redmine.md heap_dump_ruby34.md put.md heap.md store.md sidekiq.md ship.md list_remote.md].freeze

  def initialize(results = RESULTS)
    @results = results
  end

  # @return [Hash{String=>String}] what was measured, and the figure
  def all
    {
      "p99 latency of Redmine while one of two workers of 1 GB is dumped" =>
        "#{cell("redmine.md", "diagctl", "workers" => "2", "no dump" => /ms/)} times that without a dump",
      "CPU time of an idle poll" => "#{cell("idle.md", "ratio", "" => "CPU time")} times that of starting `/bin/true`",
      "CPU time of a heap dump in a process of 1 GB" =>
        "#{of_a_gigabyte("heap_dump.md", "producer", "walker", "of that with all values")} times that of `ObjectSpace.dump_all`, compressed",
      "CPU time of `diagctl heap retained` in a process of 1 GB" => "1/#{times_faster_than_reap} of that of reap"
    }
  end

  # @return [String] every result on one page
  def page
    parts = ["# Results of the benchmarks", "", "`make bench` writes this page. Each section names the machine and the versions that it was measured with.", "",
             "| measured | result |", "|---|---|", *all.map { |what, figure| "| #{what} | #{figure} |" }]
    measured = ORDER.select { |file| File.exist?(File.join(@results, file)) }
    measured.each { |file| parts << "" << read(file).gsub(/^#/, "##").strip }
    "#{parts.join("\n")}\n"
  end

  def write = File.write(File.join(@results, PAGE), page)

  private

  def read(file) = File.read(File.join(@results, file))

  # The cell of the first row in which the other columns have these values.
  def cell(file, column, where)
    rows(file).each do |row|
      return row.fetch(column) if row.key?(column) && where.all? { |name, value| value === row[name] }
    end
    raise KeyError, "#{file} has no row with #{where} and the column #{column.inspect}"
  end

  def times_faster_than_reap = of_a_gigabyte("heap.md", "program", "`heap retained`, graph", "reap's CPU is … times that")

  # The cell of the row whose process, in the first column, is nearest to 1 GB.
  def of_a_gigabyte(file, name, value, column)
    found = rows(file).select { |row| row[name] == value && row[column] != "" }
    found.min_by { |row| (Integer(row.values.first[/\d+/]) - 1000).abs }.fetch(column)
  end

  # Each row of each table, as a hash by the table's header.
  def rows(file)
    read(file).split(/\n{2,}/).flat_map do |block|
      lines = block.lines.grep(/^\|/).map { |line| line.strip.delete_prefix("|").delete_suffix("|").split("|", -1).map(&:strip) }
      header, _, *body = lines
      body.map { |cells| header.zip(cells).to_h }
    end
  end
end

Figures.new.write if $PROGRAM_NAME == __FILE__
