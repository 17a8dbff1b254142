// From a text to the numbers of its tokens, as all-MiniLM-L6-v2 reads it: the uncased BERT tokenizer
// (Devlin et al. 2019), whose words are cut into the longest pieces that its vocabulary has.
"use strict";

const LONGEST_WORD = 100; // letters; a longer one is unknown as a whole
const MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]; // mean themselves where they are typed
const MARK = /(\[(?:PAD|UNK|CLS|SEP|MASK)\])/;
const CHINESE =
  /[\u4E00-\u9FFF\u3400-\u4DBF\u{20000}-\u{2A6DF}\u{2A700}-\u{2B73F}\u{2B740}-\u{2B81F}\u{2B820}-\u{2CEAF}\uF900-\uFAFF\u{2F800}-\u{2FA1F}]/u;
const BLANK = /^(?:(?!\uFEFF)[\s\x1C-\x1F\x85])*$/; // as Python strips a text
const PUNCTUATION = /[!-/:-@[-`{-~\p{P}]/u;

class WordPiece {
  // vocabulary: text with a token a line
  constructor(vocabulary) {
    this.numbers = new Map(vocabulary.trimEnd().split("\n").map((token, i) => [token, i]));
    [, this.unknown, this.first, this.last] = MARKS.map((mark) => this.numbers.get(mark));
  }

  // At most `most` numbers, [CLS] and [SEP] among them; none for a blank text.
  read(text, most = 32) {
    if (BLANK.test(text)) return [];
    const ids = [];
    // Cut before anything else: nothing behind the first few thousand letters can be read.
    for (const part of text.slice(0, 20000).split(MARK)) {
      if (MARKS.includes(part)) ids.push(this.numbers.get(part));
      else for (const word of words(part)) ids.push(...this.pieces(word));
      if (ids.length > most) break;
    }
    this.longer = ids.length > most - 2;
    return [this.first, ...ids.slice(0, most - 2), this.last];
  }

  pieces(word) {
    const letters = Array.from(word);
    if (letters.length > LONGEST_WORD) return [this.unknown];
    const found = [];
    for (let start = 0; start < letters.length; ) {
      let end = letters.length;
      let id;
      for (; end > start; end--) {
        id = this.numbers.get((start ? "##" : "") + letters.slice(start, end).join(""));
        if (id !== undefined) break;
      }
      if (end === start) return [this.unknown];
      found.push(id);
      start = end;
    }
    return found;
  }
}

// Small letters without accents, parted at spaces; every sign and every Chinese letter is a word.
function words(text) {
  let clean = "";
  for (const letter of text) {
    if (/[\t\n\r]|\p{White_Space}/u.test(letter)) clean += " ";
    else if (letter === "\uFFFD" || /\p{Cc}|\p{Cf}|\p{Co}/u.test(letter)) continue;
    else if (/\p{Cs}/u.test(letter)) clean += "?"; // half of a letter
    else clean += CHINESE.test(letter) ? ` ${letter} ` : letter;
  }
  clean = clean.normalize("NFD").replace(/\p{Mn}/gu, "");
  let parted = "";
  for (const letter of clean) {
    const small = letter.toLowerCase(); // one by one: the last sigma of a word is like any other
    parted += PUNCTUATION.test(small) ? ` ${small} ` : small;
  }
  return parted.split(/\s+/u).filter(Boolean);
}
