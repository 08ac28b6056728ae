# frozen_string_literal: true

# Reads the records on stdin, as `diagctl put` and `diagctl finalize` do, for the scripts that stand in for the program. Keeps each
# report as put.NAME in the store, with a line in its list of calls, and prints everything else as flags.
dir, capture = ARGV
$stdin.binmode
flags = []
while (line = $stdin.gets)
  kind, name, length = line.chomp.split(" ")
  break if kind == "end"

  data = $stdin.read(length.to_i)
  case kind
  when "report"
    File.binwrite(File.join(dir, "put.#{name}"), data)
    File.write(File.join(dir, "calls"), "put --lease-fd=3 #{capture} #{name}\n", mode: "a")
  when "broken_off" then flags << "--why=#{data}"
  else flags << "--#{kind}=#{name}=#{data}"
  end
end
print flags.join(" ")
