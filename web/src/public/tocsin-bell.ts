// What hosts see of <tocsin-bell>. Imports nothing: it is published as it stands.

/** The element `<tocsin-bell>`. */
export interface TocsinBellElement extends HTMLElement {
  /** Tocsin's address; where the module was loaded from unless it is set. */
  api: string;
}

declare global {
  interface HTMLElementTagNameMap {
    'tocsin-bell': TocsinBellElement;
  }
}
