// Which unit tests meet the real machine (sockets, files, processes, the clock) and so depend on how busy it is
// and on the version of Node. All others compute on virtual time: they come to the same on a busy machine, only
// later. `.dependency-cruiser.mjs` keeps sockets, processes and clocks out of those.

export const machineTests = [
  'src/api/',
  'test/cli/',
  'test/nbd/',
  'test/platform/',
  'test/process-guest/',
  'test/qemu/',
];

/** Whole hosts on virtual time, to the letter: they rest on how V8 settles promises (docs/decisions/0007). */
export const wholeHosts = [
  'test/cluster/',
  'test/simulator/explore.test.ts',
  'test/simulator/scenarios.test.ts',
];
