// How fast a disk's data is copied in the background.

export interface Pace {
  /** Begins to copy so many bytes when it is time to; `copied` is to be called when they are. */
  next(bytes: number, begin: (copied: () => void) => void): void;
}

/** One piece after the other. */
export const unpaced: Pace = { next: (_bytes, begin) => begin(() => {}) };
