// What the networks of a lab carry: which directions between two hosts are cut, and what share of the packets
// is lost. Pure; `rules` says it in the language of nft, for one host.
//
// A host drops what it must not hear, as it comes in. One direction can so be cut alone; but hosts talk by TCP,
// and who is not told that his words arrived soon stops talking: after some of its segments a
// link that is cut in one direction is silent in both, as it is on real networks.

import type { Network, NetworkChoice } from '../scenario/scenario.ts';
import { addressOf, interfaceOf, networkNames } from './namespaces.ts';

const perMillion = 1_000_000;

export class Cuts {
  readonly #hosts: readonly string[];
  readonly #shared: boolean;
  readonly #loss: Readonly<Record<Network, number>>;
  /** `network from to`. */
  readonly #cut = new Set<string>();

  constructor(
    hosts: readonly string[],
    networks: 'separate' | 'shared',
    loss: Readonly<Record<Network, number>>,
  ) {
    this.#hosts = hosts;
    this.#shared = networks === 'shared';
    this.#loss = loss;
  }

  /** The networks that there are; a shared one goes by the name of the first. */
  get networks(): readonly Network[] {
    return this.#shared ? ['storage'] : networkNames;
  }

  /** Cuts all links between hosts of different groups, and heals all others. */
  partition(choice: NetworkChoice, groups: readonly (readonly string[])[]): void {
    const groupOf = new Map(groups.flatMap((group, index) => group.map((host) => [host, index])));
    this.#pairs((from, to) => {
      this.#set(choice, from, to, groupOf.get(from) !== groupOf.get(to));
    });
  }

  block(choice: NetworkChoice, from: string, to: string): void {
    this.#set(choice, from, to, true);
  }

  isolate(choice: NetworkChoice, host: string): void {
    this.#pairs((from, to) => {
      if (from === host || to === host) this.#set(choice, from, to, true);
    });
  }

  heal(choice: NetworkChoice): void {
    this.#pairs((from, to) => this.#set(choice, from, to, false));
  }

  /** The whole of what `nft -f -` makes of a host's filter; it replaces what was there at once. */
  rules(host: string): string {
    const lines = this.networks.flatMap((network) => {
      const at = `iifname "${interfaceOf(network)}"`;
      const mute = this.#hosts
        .filter((from) => this.#cut.has(`${network} ${from} ${host}`))
        .map((from) => addressOf(network, this.#hosts.indexOf(from)));
      const { storage, ha } = this.#loss;
      const share = this.#shared ? Math.max(storage, ha) : this.#loss[network];
      const lost = Math.round(share * perMillion);
      return [
        ...(mute.length === 0 ? [] : [`${at} ip saddr { ${mute.join(', ')} } drop`]),
        ...(lost === 0 ? [] : [`${at} numgen random mod ${perMillion} < ${lost} drop`]),
      ];
    });
    const chain = ['type filter hook input priority 0; policy accept;', ...lines];
    return `table inet lab {}
delete table inet lab
table inet lab {
  chain heard {
    ${chain.join('\n    ')}
  }
}
`;
  }

  #set(choice: NetworkChoice, from: string, to: string, cut: boolean): void {
    const chosen: readonly Network[] =
      choice === 'both' ? networkNames : this.#shared ? ['storage'] : [choice];
    for (const network of chosen) {
      const key = `${network} ${from} ${to}`;
      if (cut) this.#cut.add(key);
      else this.#cut.delete(key);
    }
  }

  #pairs(act: (from: string, to: string) => void): void {
    for (const from of this.#hosts) for (const to of this.#hosts) if (from !== to) act(from, to);
  }
}
