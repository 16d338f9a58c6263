// Starts Verdaccio on a free loopback port with the configuration file that is the first argument, and prints one
// JSON line {port, url}. Choosing the port here, not before, leaves no moment in which somebody else can take it.
// With --until-stdin-ends it ends when its parent is gone.

import { runServer } from "verdaccio";

const server = await runServer(process.argv[2]);
server.listen(Number(process.env.PORT ?? 0), "127.0.0.1", () => {
  const { port } = server.address();
  console.log(JSON.stringify({ port, url: `http://127.0.0.1:${port}` }));
});

if (process.argv.includes("--until-stdin-ends")) process.stdin.on("end", () => process.exit(0)).resume();
