// What the page shows at the moment: the group that is selected and the sample that is pointed at. Every chart listens.

const listeners = [];

export const state = { group: 0, point: -1 };

/** Registers a function to be called as f(state, changed) whenever something changes. */
export const listen = (f) => listeners.push(f);

/** Sets some of the state and tells everybody which keys changed. */
export function set(change) {
  const changed = new Set(Object.keys(change).filter((key) => state[key] !== change[key]));
  if (changed.size === 0) return;
  Object.assign(state, change);
  for (const f of listeners) f(state, changed);
}
