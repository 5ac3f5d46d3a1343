// Bundles the page into ../build/viewer, with the licenses of the bundled packages: `npm ci && npm run build`.
import { readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const folder = "../build/viewer";
rmSync(folder, { recursive: true, force: true });
const { metafile } = await build({
  entryPoints: ["viewer.js", "index.html"],
  loader: { ".html": "copy" },
  bundle: true,
  minify: true,
  metafile: true,
  outdir: folder,
});
const packages = Object.keys(metafile.inputs).map((path) => path.match(/^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//)?.[1]);
const texts = [...new Set(packages.filter(Boolean))].map((path) => {
  const { name, version, license } = JSON.parse(readFileSync(`${path}/package.json`));
  const files = readdirSync(path).filter((file) => /^licen[cs]e/i.test(file));
  return [`${name} ${version}: ${license}`, ...files.map((file) => readFileSync(`${path}/${file}`, "utf8"))].join("\n\n");
});
writeFileSync(`${folder}/licenses.txt`, texts.join(`\n\n${"-".repeat(80)}\n\n`));
