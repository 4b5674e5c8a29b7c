import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

/** Where `npm run dev` finds a running Terrace node. */
const devServer = process.env['TERRACE_URL'] ?? 'http://127.0.0.1:8080';

export default defineConfig({
  plugins: [react()],
  build: {
    // The oldest browsers that the media library itself can work with.
    target: ['es2020', 'chrome87', 'safari14', 'firefox90'],
    // Nothing becomes a data: address, so that the content security policy stays narrow.
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 700,
    manifest: true,
    rolldownOptions: {
      output: {
        // Named groups, so that a release of ours leaves the visitors' cached libraries valid.
        codeSplitting: {
          groups: [
            { name: 'react', test: /node_modules[\\/](react|react-dom|scheduler)[\\/]/ },
            { name: 'livekit', test: /node_modules[\\/](?!react[\\/]|react-dom[\\/]|scheduler[\\/]|openapi-fetch[\\/]|uqr[\\/])/ },
          ],
        },
      },
    },
  },
  server: {
    proxy: {
      '/api': { target: devServer, changeOrigin: false, secure: false },
      '/rtc': { target: devServer, ws: true, changeOrigin: false, secure: false },
    },
  },
});
