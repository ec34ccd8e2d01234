export { SeededRandom } from '../../src/simulator/world/random.ts';
