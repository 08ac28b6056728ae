// vm.mjs PACKAGES SCRIPT GUEST=HOST...: see ruby40. PACKAGES is where npm installed @ruby/4.0-wasm-wasi and @ruby/wasm-wasi.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { WASI } from "node:wasi";

const [packages, script, ...mounts] = process.argv.slice(2);
const { RubyVM } = createRequire(`${packages}/`)("@ruby/wasm-wasi");
const program = readFileSync(`${packages}/node_modules/@ruby/4.0-wasm-wasi/dist/ruby+stdlib.wasm`);
const wasi = new WASI({
  version: "preview1",
  returnOnExit: true,
  env: { HOME: "/tmp", TMPDIR: "/tmp" },
  preopens: Object.fromEntries(mounts.map((mount) => mount.split("="))),
});
const { vm } = await RubyVM.instantiateModule({ module: await WebAssembly.compile(program), wasip1: wasi });
try {
  vm.eval(readFileSync(script, "utf8"));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
