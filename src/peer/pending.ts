// The requests that wait for an answer, by the numbers that they bear. Not a Map, for the reason that stands in
// model/line.ts: a table whose places are used again instead. A number belongs to one place, and a number
// whose place is taken is passed over.

const firstPlaces = 64;
const maxNumber = 0xffffffff;

export class Pending<Request extends { readonly requestId: number }> {
  #places: (Request | null)[] = emptyPlaces(firstPlaces);
  #count = 0;
  #last = 0;

  /** The number for the next request; a power of two of places makes finding one quick. */
  nextId(): number {
    do this.#last = (this.#last % maxNumber) + 1;
    while (this.#places[this.#placeOf(this.#last)] !== null);
    return this.#last;
  }

  /** With a number that was made for it. */
  add(request: Request): void {
    this.#places[this.#placeOf(request.requestId)] = request;
    this.#count += 1;
    if (2 * this.#count > this.#places.length) this.#grow();
  }

  get(requestId: number): Request | null {
    const request = this.#places[this.#placeOf(requestId)] ?? null;
    return request?.requestId === requestId ? request : null;
  }

  /** Null: there is none, or no longer. */
  take(requestId: number): Request | null {
    const request = this.get(requestId);
    if (request === null) return null;
    this.#places[this.#placeOf(requestId)] = null;
    this.#count -= 1;
    return request;
  }

  all(): Request[] {
    const found = this.#places.flatMap((request) => request ?? []);
    return found.sort((a, b) => a.requestId - b.requestId);
  }

  clear(): void {
    this.#places = emptyPlaces(firstPlaces);
    this.#count = 0;
  }

  #placeOf(requestId: number): number {
    return requestId & (this.#places.length - 1);
  }

  /** Numbers that differed in their last bits differ in more of them. */
  #grow(): void {
    const requests = this.all();
    this.#places = emptyPlaces(2 * this.#places.length);
    for (const request of requests) this.#places[this.#placeOf(request.requestId)] = request;
  }
}

const emptyPlaces = (count: number) => Array.from({ length: count }, () => null);
