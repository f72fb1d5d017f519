// A style sheet is its text; see build.mjs.
declare module '*.css' {
  const text: string;
  export default text;
}
