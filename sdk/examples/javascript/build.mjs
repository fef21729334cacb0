// Compiles vxlan-js.js to a component, without any of WASI's features: a plugin has no clock, no
// files and no network. Its remaining imports are Heddle's own.
import { mkdir, writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const { component } = await componentize({
  sourcePath: 'vxlan-js.js',
  witPath: '../../../wit/v0.1',
  worldName: 'backend-plugin',
  disableFeatures: ['stdio', 'random', 'clocks', 'http', 'fetch-event'],
});
await mkdir('target', { recursive: true });
await writeFile('target/vxlan-js.wasm', component);
