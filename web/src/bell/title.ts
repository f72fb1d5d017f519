// The count before the page's own title, which a single-page app may change at any time.

const COUNTED = /^\(\d+\+?\) /;

export class TitleCount {
  #text = '';
  readonly #observer = new MutationObserver(() => this.#apply());

  /** '' removes it. */
  show(text: string): void {
    if (this.#text === text) return;
    this.#text = text;
    this.#observer.disconnect();
    this.#apply();
    if (text) this.#observer.observe(document.head, { subtree: true, childList: true, characterData: true });
  }

  #apply(): void {
    const bare = document.title.replace(COUNTED, '');
    const wanted = this.#text ? `(${this.#text}) ${bare}` : bare;
    if (document.title !== wanted) document.title = wanted;
  }
}
