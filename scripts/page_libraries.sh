#!/bin/sh
# Fetches the two libraries of the report's page by npm and writes them, minified, beside its template.
# Afterwards: make test, and look at a report.
set -eu
page="$(cd "$(dirname "$0")/.." && pwd)/src/ownlatent/reporting/page"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init --yes >/dev/null
npm install --no-save three@0.187.0 uplot@1.6.32 esbuild@0.28.2 >/dev/null
cat > three.js <<'JS'
export {
  BufferAttribute, BufferGeometry, Color, MOUSE, Matrix4, PerspectiveCamera, Points, Scene, ShaderMaterial, Spherical, TOUCH,
  SRGBColorSpace, Vector3, WebGLRenderer,
} from "three";
export { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
JS
node_modules/.bin/esbuild three.js --bundle --minify --charset=ascii --format=iife --global-name=THREE --legal-comments=none --outfile="$page/three.min.js"
cp node_modules/uplot/dist/uPlot.iife.min.js "$page/uPlot.min.js"
cp node_modules/uplot/dist/uPlot.min.css "$page/uPlot.min.css"
{
  echo "three.js 0.187.0 (https://threejs.org)"; echo; cat node_modules/three/LICENSE
  echo; echo "uPlot 1.6.32 (https://github.com/leeoniya/uPlot)"; echo; cat node_modules/uplot/LICENSE
} > "$page/LICENCES.txt"
