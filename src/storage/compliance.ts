// Whether an object would survive now what its policy says that it survives. An object that is
// accessible and out of compliance works, and the next failure may be one too many.

import { hostsNeeded } from '../model/policy.ts';
import type { ComponentView, ObjectView } from './api.ts';

/** Each a sentence, the worst first; none: it complies. `isThick`: all space of its components is theirs. */
export function complianceProblems(
  object: Omit<ObjectView, 'problems'>,
  isThick: boolean,
): string[] {
  const problems: string[] = [];
  if (!object.accessible.accessible)
    problems.push(`It is not accessible: ${object.accessible.text}`);
  const copies = copyProblem(object);
  if (copies !== null) problems.push(copies);
  const layout = layoutProblem(object, isThick);
  if (layout !== null) problems.push(layout);
  const away = object.votes.filter((vote) => vote.state !== 'reachable');
  if (away.length > 0) {
    const hosts = away.map((vote) => `${vote.host} (${vote.role}, ${vote.state})`).join(', ');
    problems.push(
      `${away.length} of its ${object.votes.length} voters can not be reached: ${hosts}`,
    );
  }
  const needed = hostsNeeded(object.policy);
  const distinct = new Set(object.votes.map((vote) => vote.host)).size;
  if (distinct < needed) {
    problems.push(`Its voters are on ${distinct} hosts, and its policy needs ${needed}`);
  }
  return problems;
}

/** It survives what it shall, and is not yet spread as it shall be. */
function layoutProblem(object: Omit<ObjectView, 'problems'>, isThick: boolean): string | null {
  const { kind, components, next, policy } = object;
  if (kind !== 'disk') return null;
  const scattered = scatteredHosts(components);
  if (scattered !== null) return `One of its copies is spread over ${scattered}, not on one host`;
  const stripes = 1 + Math.max(0, ...components.map((part) => part.stripe));
  const isThin = policy.thick === true && !isThick;
  if (stripes === policy.stripes && !isThin) return null;
  const asked = `${policy.stripes} ${policy.stripes === 1 ? 'stripe' : 'stripes'}${isThin ? ' of thick components' : ''}`;
  const state = next.length === 0 ? '' : '; it is being copied to new components';
  return `It has ${stripes} ${stripes === 1 ? 'stripe' : 'stripes'}, and its policy asks for ${asked}${state}`;
}

function scatteredHosts(components: readonly ComponentView[]): string | null {
  for (const { mirror } of components) {
    const hosts = new Set(components.filter((one) => one.mirror === mirror).map((one) => one.host));
    if (hosts.size > 1) return [...hosts].join(' and ');
  }
  return null;
}

function copyProblem({ kind, components, policy }: Omit<ObjectView, 'problems'>): string | null {
  if (kind !== 'disk') return null;
  const wanted = policy.failuresToTolerate + 1;
  const mirrors = new Map<number, ComponentView[]>();
  for (const part of components) {
    mirrors.set(part.mirror, [...(mirrors.get(part.mirror) ?? []), part]);
  }
  const isWhole = (parts: readonly ComponentView[]) =>
    parts.every((part) => part.state === 'active');
  const whole = [...mirrors.values()].filter(isWhole).length;
  if (whole >= wanted) return null;
  const missing = components
    .filter((part) => part.state !== 'active')
    .map((part) => `${part.host} (${part.state})`);
  const where = missing.length === 0 ? '' : `: ${[...new Set(missing)].join(', ')}`;
  return `It has ${whole} of the ${wanted} whole copies that its policy asks for${where}`;
}
