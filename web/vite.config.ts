import { defineConfig } from "vite";

// The page is served by parley under /page/ and lands in the Python package, so that the wheel carries it.
export default defineConfig({
  base: "/page/",
  build: {
    outDir: "../bridge/gateways/web/static",
    emptyOutDir: true,
    sourcemap: false,
    chunkSizeWarningLimit: 900,
    modulePreload: { polyfill: false },
  },
});
